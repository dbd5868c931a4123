//! Builds wheels for tests.

use std::io::Write as _;

use flate2::Crc;

/// A handmade zip file with one entry: APPNOTE.TXT sections 4.3.7, 4.3.12 and 4.3.16.
pub(super) fn build_wheel(name: &str, data: &[u8], deflate: bool) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(data);
    let packed = if deflate {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    } else {
        data.to_vec()
    };
    let size = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
    let mut about = Vec::new();
    about.extend([20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0]);
    about.extend(crc.sum().to_le_bytes());
    about.extend(size(packed.len()));
    about.extend(size(data.len()));
    about.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    about.extend([0, 0]);
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(&about);
    zip.extend(name.as_bytes());
    zip.extend(&packed);
    let directory = zip.len();
    zip.extend(b"PK\x01\x02\x14\x00");
    zip.extend(&about);
    zip.extend([0; 14]);
    zip.extend(name.as_bytes());
    let length = zip.len() - directory;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend(size(length));
    zip.extend(size(directory));
    zip.extend([0, 0]);
    zip
}
