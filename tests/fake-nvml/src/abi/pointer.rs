//! Pointers that callers pass. All the unsafety of reading and writing through them is here.
//!
//! Each type is one C pointer wide and is made by the caller's side of the ABI only: nothing in this crate can make one
//! that is not null. NVML's contract is then what makes the methods sound: a pointer is null, or valid for what the
//! function's documentation says, until the call returns.

use std::ffi::{CStr, c_char, c_uint};

use super::{Code, Outcome};

/// Where a call puts a result, or an array of results.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// Is it the null pointer, with which many calls ask for a size only?
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same pointer where it is not null.
    pub(crate) fn required(self) -> Result<Self, Code> {
        if self.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(self) }
    }

    /// Stores a result.
    pub(crate) fn set(self, value: T) -> Outcome {
        let out = self.required()?;
        // SAFETY: not null, so by NVML's contract valid for a write of `T`. C callers may misalign packed structs.
        unsafe { out.0.write_unaligned(value) };
        Ok(())
    }

    /// Reads what the caller has put there.
    pub(crate) fn get(self) -> Result<T, Code> {
        let out = self.required()?;
        // SAFETY: not null, so by NVML's contract it points to a `T` that the caller has initialised; every `T` used here
        // is made of integers, floats and pointers, for which any bit pattern is a value.
        Ok(unsafe { out.0.read_unaligned() })
    }

    /// The place of the `index`th element, for arrays that the caller says are longer than `index`.
    pub(crate) fn element(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    /// Stores an array. The caller must have room for it: compare with the length that was passed first.
    pub(crate) fn set_all(self, values: &[T]) -> Outcome {
        let out = self.required()?;
        for (index, value) in values.iter().enumerate() {
            out.element(index).set(*value)?;
        }
        Ok(())
    }

    /// The same address as another type: for structs whose first field tells which of several layouts follows.
    pub(crate) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// The place `bytes` further on, as another type.
    pub(crate) fn at_offset<U>(self, bytes: usize) -> Out<U> {
        Out(self.0.cast::<u8>().wrapping_add(bytes).cast())
    }

    /// The layout that a versioned struct announces in its first field.
    pub(crate) fn version(self) -> Result<c_uint, Code> {
        self.cast::<c_uint>().get()
    }

    /// Refuses a versioned struct of another layout than this.
    pub(crate) fn expect_version(self, version: c_uint) -> Outcome {
        if self.version()? == version { Ok(()) } else { Err(Code::ARGUMENT_VERSION_MISMATCH) }
    }
}

impl Out<c_char> {
    /// Stores a C string if it fits into `length` bytes with its zero.
    pub(crate) fn set_text(self, text: &str, length: c_uint) -> Outcome {
        self.required()?;
        if text.len() >= length as usize {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        for (index, byte) in text.bytes().chain([0]).enumerate() {
            self.element(index).set(byte as c_char)?;
        }
        Ok(())
    }
}

/// A C string that the caller passes.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// The string; whatever is not UTF-8 is no name that we know.
    pub(crate) fn get(self) -> Result<String, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by NVML's contract a C string that ends in a zero byte.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| Code::INVALID_ARGUMENT)
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// The number inside means something to this library only and is never used as an address, so a stale or an
            /// invented handle is refused, not followed.
            #[repr(transparent)]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name(pub usize);
        )*
    };
}

handles! {
    /// `nvmlDevice_t`.
    Device;
    /// `nvmlEventSet_t`.
    EventSet;
    /// `nvmlGpmSample_t`.
    GpmSample;
}
