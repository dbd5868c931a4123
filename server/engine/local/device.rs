//! The choice of the device that the model runs on, and the reason for it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use candle_core::Device;

use crate::EngineError;

/// The user's choice of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best available: an NVIDIA GPU, an Apple GPU, the CPU.
    #[default]
    Auto,
    /// The CPU, even if a GPU is available.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// The first Apple GPU.
    Metal,
}

/// An opened device.
#[derive(Debug, Clone)]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// Its name and the reason, e.g. `CPU: this build has no GPU support`.
    pub why: String,
}

/// The device name is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown device {0:?}: expected auto, cpu, cuda or metal")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "metal" => Ok(Self::Metal),
            _ => Err(UnknownDevice(name.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        })
    }
}

/// Opens the device for `choice`.
///
/// # Errors
/// A GPU was selected by name and is not available or not supported by this build. [`DeviceChoice::Auto`] never fails:
/// it falls back to the CPU and reports the reason.
pub fn choose_device(choice: DeviceChoice) -> Result<ChosenDevice, EngineError> {
    match choice {
        DeviceChoice::Cpu => Ok(cpu_device("selected by name")),
        DeviceChoice::Cuda => {
            let device = open_cuda().map_err(|problem| missing_device_error("CUDA", "cuda", &problem))?;
            Ok(ChosenDevice { device, why: "CUDA: selected by name".to_owned() })
        }
        DeviceChoice::Metal => {
            let device = open_metal().map_err(|problem| missing_device_error("Metal", "metal", &problem))?;
            Ok(ChosenDevice { device, why: "Metal: selected by name".to_owned() })
        }
        DeviceChoice::Auto if cfg!(feature = "cuda") => Ok(match open_cuda() {
            Ok(device) => {
                ChosenDevice { device, why: "CUDA: this build supports it and a GPU is available".to_owned() }
            }
            Err(problem) => cpu_device(&format!("CUDA does not work here: {problem}")),
        }),
        DeviceChoice::Auto if cfg!(feature = "metal") => Ok(match open_metal() {
            Ok(device) => ChosenDevice {
                device,
                why: "Metal: this build supports it and a GPU is available".to_owned(),
            },
            Err(problem) => cpu_device(&format!("Metal does not work here: {problem}")),
        }),
        DeviceChoice::Auto => Ok(cpu_device("this build has no GPU support")),
    }
}

fn cpu_device(why: &str) -> ChosenDevice {
    ChosenDevice { device: Device::Cpu, why: format!("CPU: {why}") }
}

fn open_cuda() -> Result<Device, String> {
    if !cfg!(feature = "cuda") {
        return Err("this build has no CUDA support (build with `--features cuda`)".to_owned());
    }
    open_guarded(|| Device::new_cuda(0))
}

fn open_metal() -> Result<Device, String> {
    if !cfg!(feature = "metal") {
        return Err("this build has no Metal support (build with `--features metal`)".to_owned());
    }
    open_guarded(|| Device::new_metal(0))
}

/// Calls `new`; a panic of the drivers' bindings, as for a missing library or device, counts as an error.
fn open_guarded(new: impl FnOnce() -> candle_core::Result<Device>) -> Result<Device, String> {
    match catch_unwind(AssertUnwindSafe(new)) {
        Ok(Ok(device)) => Ok(device),
        // The first line; the rest may be a backtrace.
        Ok(Err(error)) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
        Err(_) => Err("the driver could not be loaded".to_owned()),
    }
}

fn missing_device_error(device: &str, word: &str, problem: &str) -> EngineError {
    EngineError::Device {
        device: device.to_owned(),
        source: format!("{problem}; choose another device than {word:?}, or \"auto\"").into(),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn device_names_round_trip_and_unknown_are_refused() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda, DeviceChoice::Metal] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "gpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("\"gpu\"") && error.contains("cuda"), "{error}");
    }

    #[test]
    fn cpu_device_is_available_with_reason() {
        let chosen = choose_device(DeviceChoice::Cpu).unwrap();
        assert!(chosen.device.is_cpu());
        assert_eq!(chosen.why, "CPU: selected by name");
        let auto = choose_device(DeviceChoice::Auto).unwrap();
        assert!(auto.why.contains(": "), "{}", auto.why);
        if !cfg!(any(feature = "cuda", feature = "metal")) {
            assert_eq!(auto.why, "CPU: this build has no GPU support");
        }
    }

    #[test]
    fn gpu_missing_from_build_is_error_with_remedy() {
        if !cfg!(feature = "cuda") {
            let error = choose_device(DeviceChoice::Cuda).unwrap_err().to_string();
            assert!(error.contains("--features cuda") && error.contains("auto"), "{error}");
        }
        if !cfg!(feature = "metal") {
            let error = choose_device(DeviceChoice::Metal).unwrap_err().to_string();
            assert!(error.contains("--features metal") && error.contains("auto"), "{error}");
        }
    }
}
