//! What happens around the body of every exported function.

use std::ffi::c_uint;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{Code, Device, Outcome};
use crate::session::{self, Gpu, Session, Target};

/// Runs the body of a call that needs an initialised library.
pub(crate) fn library_call(name: &str, body: impl FnOnce(&Session) -> Outcome) -> Code {
    guard(|| {
        let session = session::current()?;
        session.begin_call(name, None)?;
        body(&session)
    })
}

/// Runs the body of a call about a GPU.
pub(crate) fn device_call(name: &str, device: Device, body: impl FnOnce(&Gpu<'_>) -> Outcome) -> Code {
    guard(|| {
        let session = session::current()?;
        session.begin_call(name, session.board_of(device))?;
        body(&session.gpu(device)?)
    })
}

/// Runs the body of a call about a GPU or a MIG device.
pub(crate) fn instance_call(name: &str, device: Device, body: impl FnOnce(&Target<'_>) -> Outcome) -> Code {
    guard(|| {
        let session = session::current()?;
        session.begin_call(name, session.board_of(device))?;
        body(&session.target(device)?)
    })
}

/// Keeps a panic from crossing the ABI, where it would end the process that we are loaded into.
pub(crate) fn guard(body: impl FnOnce() -> Outcome) -> Code {
    catch_unwind(AssertUnwindSafe(body)).map_or(Code::UNKNOWN, Code::from)
}

/// A reading as C wants it: the nearest whole number.
pub(crate) fn whole(value: f64) -> c_uint {
    value.round() as c_uint
}

/// Defines exported functions. `library` functions get the session, `device` functions take a device handle first and get
/// the GPU it stands for, `instance` functions take the handle of a GPU or of a MIG device; the body yields an `Outcome`.
macro_rules! exports {
    ($($(#[$doc:meta])* $kind:ident fn $name:ident($me:ident $(, $arg:ident: $type:ty)* $(,)?) $body:block)*) => {
        $($crate::call::exports!(@$kind ($(#[$doc])*) $name $me ($($arg: $type),*) $body);)*
    };
    (@library ($($doc:tt)*) $name:ident $me:ident ($($arg:ident: $type:ty),*) $body:block) => {
        $($doc)*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> $crate::abi::Code {
            $crate::call::library_call(stringify!($name), |$me| $body)
        }
    };
    (@device ($($doc:tt)*) $name:ident $me:ident ($($arg:ident: $type:ty),*) $body:block) => {
        $($doc)*
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: $crate::abi::Device, $($arg: $type),*) -> $crate::abi::Code {
            $crate::call::device_call(stringify!($name), device, |$me| $body)
        }
    };
    (@instance ($($doc:tt)*) $name:ident $me:ident ($($arg:ident: $type:ty),*) $body:block) => {
        $($doc)*
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: $crate::abi::Device, $($arg: $type),*) -> $crate::abi::Code {
            $crate::call::instance_call(stringify!($name), device, |$me| $body)
        }
    };
}
pub(crate) use exports;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guard(|| Err(Code::NO_DATA)), Code::NO_DATA);
        assert_eq!(guard(|| panic!("on purpose")), Code::UNKNOWN);
    }

    #[test]
    fn nothing_works_before_initialisation() {
        assert_eq!(library_call("nvmlShutdown", |_| Ok(())), Code::UNINITIALIZED);
        assert_eq!(device_call("nvmlDeviceGetName", Device(1), |_| Ok(())), Code::UNINITIALIZED);
    }
}
