//! `getaddrinfo`, with names of a file.

use std::{
    ffi::{CStr, CString},
    ptr,
    sync::OnceLock,
};

use libc::{AI_NUMERICHOST, EAI_NONAME, RTLD_NEXT, addrinfo, c_char, c_int};

type GetAddrInfo =
    unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;

/// Takes the C library's place.
///
/// # Safety
/// As for the function that it stands for: texts end in zero, and `found` can be written to.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    found: *mut *mut addrinfo,
) -> c_int {
    let Some(real) = real() else { return EAI_NONAME };
    let asked = if node.is_null() {
        None
    } else {
        // SAFETY: the caller vouches for a text that ends in zero.
        unsafe { CStr::from_ptr(node) }.to_str().ok()
    };
    let Some(addresses) = asked.and_then(addresses) else {
        // SAFETY: it is the caller's call, as it is.
        return unsafe { real(node, service, hints, found) };
    };
    let mut all: *mut addrinfo = ptr::null_mut();
    for address in addresses.iter().rev() {
        let Ok(address) = CString::new(address.as_str()) else { continue };
        // SAFETY: plain numbers, for which zero is a value.
        let mut numeric: addrinfo = unsafe { std::mem::zeroed() };
        if !hints.is_null() {
            // SAFETY: the caller vouches for its hints.
            let hints = unsafe { &*hints };
            (numeric.ai_family, numeric.ai_socktype) = (hints.ai_family, hints.ai_socktype);
            (numeric.ai_protocol, numeric.ai_flags) = (hints.ai_protocol, hints.ai_flags);
        }
        numeric.ai_flags |= AI_NUMERICHOST;
        let mut one: *mut addrinfo = ptr::null_mut();
        // SAFETY: all pointers are to locals or the caller's.
        if unsafe { real(address.as_ptr(), service, &raw const numeric, &raw mut one) } == 0 && !one.is_null()
        {
            // SAFETY: the C library has just made a list of one node, whose end this is; freeing a list frees its nodes one
            // by one.
            unsafe { (*one).ai_next = all };
            all = one;
        }
    }
    if all.is_null() {
        return EAI_NONAME;
    }
    // SAFETY: the caller vouches for the place.
    unsafe { *found = all };
    0
}

fn real() -> Option<GetAddrInfo> {
    static REAL: OnceLock<Option<GetAddrInfo>> = OnceLock::new();
    *REAL.get_or_init(|| {
        // SAFETY: the name ends in zero, and whatever has it next is the C library's function.
        unsafe {
            let next = libc::dlsym(RTLD_NEXT, c"getaddrinfo".as_ptr());
            std::mem::transmute::<*mut libc::c_void, Option<GetAddrInfo>>(next)
        }
    })
}

/// The addresses of a name that the file has.
fn addresses(name: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(crate::path("PLIMSOLL_FAKE_HOST_NAMES")?).ok()?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.map(str::to_owned).collect()))
}
