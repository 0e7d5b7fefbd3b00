//! NVIDIA's own programs ask for a table of functions that are nobody else's: `nvidia-smi` does not start without one.
//!
//! What those functions do is not documented. Here all of them say that they are not supported, and `nvidia-smi` then takes
//! the public functions, or leaves a value out.

use std::ffi::c_void;

use crate::abi::{Code, Out};
use crate::call::guard;

/// More functions than any table is known to have.
const FUNCTIONS: usize = 1024;

static TABLE: [extern "C" fn() -> Code; FUNCTIONS] = [not_supported; FUNCTIONS];

extern "C" fn not_supported() -> Code {
    Code::NOT_SUPPORTED
}

/// Every table that is asked for is the same.
#[unsafe(no_mangle)]
extern "C" fn nvmlInternalGetExportTable(table: Out<*const c_void>, _id: *const c_void) -> Code {
    guard(|| table.set(TABLE.as_ptr().cast()))
}
