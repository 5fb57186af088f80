//! Instructions, counted by valgrind's callgrind: the same on a busy machine as on a quiet one, which no
//! clock is. What they leave out (cache misses, the kernel) a measurement has to show.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::error::Error;

/// The function of the driver that is counted.
const WATCHED: &str = "*::measured*";
/// Times that a case is done: enough that entering the function does not matter.
const TIMES: u32 = 50;

/// The program that does what is counted.
#[derive(Clone, Debug)]
pub struct Driver {
    program: PathBuf,
}

impl Driver {
    /// One that is there already.
    pub fn at(program: PathBuf) -> Driver {
        Driver { program }
    }

    /// Builds it from the sources in the current directory.
    pub fn build() -> Result<Driver, Error> {
        let mut command = Command::new("cargo");
        command.args([
            "build",
            "--release",
            "--locked",
            "--package",
            "tidegate-lab",
        ]);
        command.args(["--example", "instructions", "--message-format", "json"]);
        command.stderr(std::process::Stdio::inherit());
        let output = run(&mut command)?;
        let built = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned()))
            .next_back();
        match built {
            Some(program) => Ok(Driver::at(program.into())),
            None => Err(Error::Load("cargo did not say what it built".to_owned())),
        }
    }

    /// What it can do.
    pub fn cases(&self) -> Result<Vec<String>, Error> {
        let output = run(&mut Command::new(&self.program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Instructions of each case, per time.
    pub fn count(&self, directory: &Path) -> Result<BTreeMap<String, f64>, Error> {
        let mut counts = BTreeMap::new();
        for case in self.cases()? {
            let file = directory.join(format!("callgrind.{case}"));
            let mut command = Command::new("valgrind");
            command.args(["--tool=callgrind", "--quiet", "--collect-atstart=no"]);
            command.arg(format!("--toggle-collect={WATCHED}"));
            command.arg(format!("--callgrind-out-file={}", file.display()));
            command.arg(&self.program).args([&case, &TIMES.to_string()]);
            run(&mut command)?;
            let text = fs::read_to_string(&file)
                .map_err(Error::io(format!("reading {}", file.display())))?;
            let total = total(&text)
                .filter(|total| *total > 0)
                .ok_or_else(|| Error::Load(format!("callgrind saw no instructions of `{case}`")))?;
            counts.insert(case, total as f64 / f64::from(TIMES));
        }
        Ok(counts)
    }
}

/// Runs a command to its end; anything but success is an error.
fn run(command: &mut Command) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Host(format!(
                "`{program}` is not there; counting instructions takes valgrind (`apt-get install valgrind`) \
                 and, without --driver, cargo"
            )));
        }
        other => other.map_err(Error::io(format!("starting {program}")))?,
    };
    match output.status.success() {
        true => Ok(output),
        false => Err(Error::Load(format!(
            "`{program}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// The instructions of a whole callgrind file: its `totals:` or, in files of several parts, `summary:`.
fn total(text: &str) -> Option<u64> {
    let of = |key: &str| -> Option<u64> {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(key))?;
        // The first event is the instructions; there are further ones if they were asked for.
        line.split_whitespace().next()?.parse().ok()
    };
    of("totals:").or_else(|| of("summary:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The total is found in what callgrind writes, with one event or several, and in nothing else.
    #[test]
    fn totals_are_found() {
        let head = "version: 1\nevents: Ir\nfn=(1) main\n12 400\n";
        assert_eq!(
            total(&format!("{head}summary: 77\n\ntotals: 12345\n")),
            Some(12_345)
        );
        assert_eq!(total(&format!("{head}summary: 12345 9 3\n")), Some(12_345));
        assert_eq!(total(head), None);
        assert_eq!(total("totals: many\n"), None);
    }
}
