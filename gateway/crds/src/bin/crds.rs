//! Writes the definitions of the custom resources into a folder: `crds DIR`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("crds DIR: writes the definitions of the custom resources there");
        return ExitCode::FAILURE;
    };
    for definition in crds::definitions() {
        let written = crds::file(&definition)
            .map_err(|error| error.to_string())
            .and_then(|(name, text)| fs::write(folder.join(name), text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
