//! A report as a directory: `result.json` with everything, `report.html`, `report.md`, and `hdr/` for
//! HdrHistogram's tools.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{hdr, html, markdown};
use crate::{error::Error, run::RunResult};

/// Version of `result.json` that is written; older ones had less in them.
pub const FORMAT: u32 = 2;

/// Writes all of it and returns the page's path.
pub fn write(result: &RunResult, directory: &Path) -> Result<PathBuf, Error> {
    let creating = format!("creating {}", directory.display());
    fs::create_dir_all(directory).map_err(Error::io(creating))?;
    let json = serde_json::to_string(result)
        .map_err(|error| Error::io("writing the result")(error.into()))?;
    put(&directory.join("result.json"), &json)?;
    render(result, directory)
}

/// Writes what can be made of a `result.json`, and returns the page's path.
pub fn render(result: &RunResult, directory: &Path) -> Result<PathBuf, Error> {
    let hdr_directory = directory.join("hdr");
    let creating = format!("creating {}", hdr_directory.display());
    fs::create_dir_all(&hdr_directory).map_err(Error::io(creating))?;
    for file in hdr::files(result) {
        put(&hdr_directory.join(file.name), &file.text)?;
    }
    put(&directory.join("report.md"), &markdown::table(result))?;
    let page = directory.join("report.html");
    put(&page, &html::page(result)?)?;
    Ok(page)
}

/// Reads a `result.json`.
pub fn read(path: &Path) -> Result<RunResult, Error> {
    let text =
        fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))?;
    let result: RunResult = serde_json::from_str(&text)
        .map_err(|error| Error::Usage(format!("{} is not a result: {error}", path.display())))?;
    if result.format != FORMAT {
        return Err(Error::Usage(format!(
            "{} has format {}, and this lab reads format {FORMAT}",
            path.display(),
            result.format
        )));
    }
    Ok(result)
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::report::sample;

    /// What was written is read back and renders the same page; another format is refused.
    #[test]
    fn a_result_renders_again() {
        let directory = std::env::temp_dir().join(format!("lab-report-{}", std::process::id()));
        let mut result = sample::run();
        let page = fs::read_to_string(write(&result, &directory).unwrap()).unwrap();
        let json = directory.join("result.json");
        let again = fs::read_to_string(render(&read(&json).unwrap(), &directory).unwrap());
        assert_eq!(page, again.unwrap());
        assert!(
            directory
                .join("hdr/many-connections-tidegate.hgrm")
                .is_file()
        );
        result.format = 1;
        write(&result, &directory).unwrap();
        assert!(read(&json).unwrap_err().to_string().contains("format 1"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
