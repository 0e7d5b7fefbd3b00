//! NVML's return codes.

use std::ffi::{CStr, c_uint};

/// What a call returns (`nvmlReturn_t`).
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub c_uint);

/// What the body of a call returns: a success, or the code that says why not.
pub(crate) type Outcome = Result<(), Code>;

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// The code with this name, such as `GPU_IS_LOST`.
            pub(crate) fn named(name: &str) -> Option<Self> {
                const NAMES: &[(c_uint, &str)] = &[$(($value, stringify!($name))),*];
                NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| Self(*value))
            }

            /// The text for people; that of `UNKNOWN` for a code that is not known.
            #[must_use]
            pub fn text(self) -> &'static CStr {
                const TEXTS: &[(c_uint, &str)] = &[$(($value, concat!($text, "\0"))),*];
                TEXTS
                    .iter()
                    .find(|(value, _)| *value == self.0)
                    .and_then(|(_, text)| CStr::from_bytes_with_nul(text.as_bytes()).ok())
                    .unwrap_or(c"Unknown Error")
            }
        }
    };
}

codes! {
    SUCCESS = 0, "Success";
    UNINITIALIZED = 1, "Uninitialized";
    INVALID_ARGUMENT = 2, "Invalid Argument";
    NOT_SUPPORTED = 3, "Not Supported";
    NO_PERMISSION = 4, "Insufficient Permissions";
    ALREADY_INITIALIZED = 5, "Already Initialized";
    NOT_FOUND = 6, "Not Found";
    INSUFFICIENT_SIZE = 7, "Insufficient Size";
    INSUFFICIENT_POWER = 8, "Insufficient External Power";
    DRIVER_NOT_LOADED = 9, "Driver Not Loaded";
    TIMEOUT = 10, "Timeout";
    IRQ_ISSUE = 11, "Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12, "NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13, "Function Not Found";
    CORRUPTED_INFOROM = 14, "Corrupted infoROM";
    GPU_IS_LOST = 15, "GPU is lost";
    RESET_REQUIRED = 16, "GPU requires reset";
    OPERATING_SYSTEM = 17, "GPU access blocked by the operating system";
    LIB_RM_VERSION_MISMATCH = 18, "Driver/library version mismatch";
    IN_USE = 19, "In use by another client";
    MEMORY = 20, "Insufficient Memory";
    NO_DATA = 21, "No data";
    INSUFFICIENT_RESOURCES = 23, "Insufficient resources";
    FREQ_NOT_SUPPORTED = 24, "Frequency not supported";
    ARGUMENT_VERSION_MISMATCH = 25, "The provided version is invalid/unsupported";
    DEPRECATED = 26, "The requested functionality has been deprecated";
    NOT_READY = 27, "The system is not ready for the request";
    GPU_NOT_FOUND = 28, "No GPUs were found";
    INVALID_STATE = 29, "Resource not in correct state to perform requested operation";
    UNKNOWN = 999, "Unknown Error";
}

impl From<Outcome> for Code {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Self::SUCCESS,
            Err(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text() {
        assert_eq!(Code::GPU_IS_LOST.text(), c"GPU is lost");
        assert_eq!(Code::SUCCESS.text(), c"Success");
        assert_eq!(Code(77_777).text(), c"Unknown Error");
    }
}
