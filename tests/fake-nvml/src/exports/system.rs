//! Initialisation, versions and texts.

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::{Code, Out};
use crate::call::{exports, guard};
use crate::session;

/// Starts the library; every start wants one `nvmlShutdown`.
#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Code {
    guard(|| session::initialise("nvmlInit_v2"))
}

/// The first version: it too starts the library.
#[unsafe(no_mangle)]
extern "C" fn nvmlInit() -> Code {
    guard(|| session::initialise("nvmlInit"))
}

/// Starts the library. The flags say what to do when there is no GPU or none may be attached; here neither happens.
#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Code {
    guard(|| session::initialise("nvmlInitWithFlags"))
}

/// Takes one start back.
#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Code {
    guard(|| session::shut_down("nvmlShutdown"))
}

/// The text of a code. It works at any time.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: Code) -> *const c_char {
    code.text().as_ptr()
}

exports! {
    library fn nvmlSystemGetDriverVersion(session, version: Out<c_char>, length: c_uint) {
        version.set_text(&session.driver.version, length)
    }
    library fn nvmlSystemGetNVMLVersion(session, version: Out<c_char>, length: c_uint) {
        version.set_text(&session.driver.nvml, length)
    }
    library fn nvmlSystemGetCudaDriverVersion(session, version: Out<c_int>) {
        version.set(session.driver.cuda)
    }
    library fn nvmlSystemGetCudaDriverVersion_v2(session, version: Out<c_int>) {
        version.set(session.driver.cuda)
    }
    // There are no S-class units: those were deskside boxes.
    library fn nvmlUnitGetCount(_session, count: Out<c_uint>) { count.set(0) }
    library fn nvmlGetExcludedDeviceCount(_session, count: Out<c_uint>) { count.set(0) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetProcessName(pid: c_uint, name: Out<c_char>, length: c_uint) -> Code {
    crate::call::library_call("nvmlSystemGetProcessName", |session| {
        let listed = session.scenario.processes.iter().find(|process| process.pid == pid);
        let text =
            listed.map(|process| process.name.clone()).or_else(|| command_of(pid)).ok_or(Code::NOT_FOUND)?;
        // NVIDIA's library cuts the name to the room there is.
        name.set_text(&text[..text.floor_char_boundary((length as usize).saturating_sub(1))], length)
    })
}

/// The program of a process of this machine: pids of engines are real.
fn command_of(pid: c_uint) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = line.split(|byte| *byte == 0).next().filter(|program| !program.is_empty())?;
    Some(String::from_utf8_lossy(program).into_owned())
}
