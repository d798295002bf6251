//! The commands, one file each, and what starts them.

use std::process::ExitCode;

/// Parses the arguments and runs the command that they name.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
