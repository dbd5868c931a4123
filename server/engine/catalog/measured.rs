//! The record of measured model speeds on this machine, used to choose the default model.
//!
//! `measured.tsv` has one line per model: model, kernel, prefill and decode in tokens per second, date.

use std::fs;
use std::io;
use std::path::Path;

/// The record's file, in taper's data folder.
const RECORD_FILE: &str = "measured.tsv";

/// The measured speed of a model on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredSpeed {
    /// The model's name in the catalog.
    pub model: String,
    /// The device and kernels. A record of other kernels does not apply to these.
    pub kernel: String,
    /// Prompt tokens per second.
    pub prefill_tps: f64,
    /// Generated tokens per second.
    pub decode_tps: f64,
    /// The day, `2026-11-22`.
    pub date: String,
}

/// Reads the record in `folder`, oldest first. Invalid lines are skipped, and a missing file is an empty record: in
/// the worst case the smallest model is chosen.
pub fn read_record(folder: &Path) -> Vec<MeasuredSpeed> {
    let text = fs::read_to_string(folder.join(RECORD_FILE)).unwrap_or_default();
    text.lines().filter_map(parse_line).collect()
}

/// Adds `new` to the record in `folder`, replacing an earlier line of the same model.
///
/// # Errors
/// The file cannot be written.
pub fn write_record(folder: &Path, new: &MeasuredSpeed) -> io::Result<()> {
    let mut all = read_record(folder);
    all.retain(|old| old.model != new.model);
    all.push(new.clone());
    let field = |text: &str| text.replace(['\t', '\n', '\r'], " ");
    let mut text = String::new();
    for m in &all {
        let (model, kernel, date) = (field(&m.model), field(&m.kernel), field(&m.date));
        text += &format!("{model}\t{kernel}\t{:.1}\t{:.1}\t{date}\n", m.prefill_tps, m.decode_tps);
    }
    fs::create_dir_all(folder)?;
    // Written to a temporary file and renamed, so that a reader never sees a partial record.
    let temporary = folder.join(format!("{RECORD_FILE}.{}", std::process::id()));
    fs::write(&temporary, text)?;
    fs::rename(&temporary, folder.join(RECORD_FILE))
}

/// Parses one line of the record.
fn parse_line(line: &str) -> Option<MeasuredSpeed> {
    let [model, kernel, prefill, decode, date] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let speed = |text: &str| text.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0);
    Some(MeasuredSpeed {
        model: model.into(),
        kernel: kernel.into(),
        prefill_tps: speed(prefill)?,
        decode_tps: speed(decode)?,
        date: date.into(),
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn measured_speed_is_replaced_by_model() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("not/there/yet");
        assert_eq!(read_record(&data), []);
        let first = MeasuredSpeed {
            model: "a".into(),
            kernel: "AVX2,\tportable".into(),
            prefill_tps: 218.0,
            decode_tps: 33.1,
            date: "2026-11-22".into(),
        };
        write_record(&data, &first).unwrap();
        write_record(&data, &MeasuredSpeed { model: "b".into(), ..first.clone() }).unwrap();
        write_record(&data, &MeasuredSpeed { decode_tps: 40.0, ..first }).unwrap();
        let all = read_record(&data);
        assert_eq!(all.iter().map(|m| m.model.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((all[0].decode_tps, all[1].decode_tps), (33.1, 40.0));
        assert_eq!(all[1].kernel, "AVX2, portable");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }

    #[test]
    fn malformed_record_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(RECORD_FILE),
            "a\tk\t1\t0\td\nb\tk\tNaN\t1\td\nc\tk\t1\nd\tk\t1.5\t2\td\n\n",
        )
        .unwrap();
        assert_eq!(read_record(folder.path()).iter().map(|m| m.model.as_str()).collect::<Vec<_>>(), ["d"]);
        fs::write(folder.path().join(RECORD_FILE), [0xff, 0xfe]).unwrap();
        assert_eq!(read_record(folder.path()), []);
    }
}
