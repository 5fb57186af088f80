//! `tidegate-lab report`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    error::Error,
    report::{files, markdown, text::Table},
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab report lab-report/result.json
  tidegate-lab report lab-report/result.json --out /tmp/report
  tidegate-lab report lab-report/result.json --update README.md
  tidegate-lab report lab-report/result.json --update docs/benchmarks.md --table tls";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportArguments {
    /// The result of a run or a comparison.
    result: PathBuf,
    /// The directory for the report; beside the result, if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Put the table between the markers of this Markdown file, instead of writing a report.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    update: Option<PathBuf>,
    /// Which table of that file, if it has several: between `begin NAME` and `end NAME`.
    #[arg(long, value_name = "NAME", requires = "update")]
    table: Option<String>,
}

pub(super) fn execute(arguments: ReportArguments) -> Result<ExitCode, Error> {
    let result = files::read(&arguments.result)?;
    if let Some(path) = &arguments.update {
        let document =
            fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))?;
        let updated = markdown::update(
            &document,
            arguments.table.as_deref(),
            &markdown::table(&result),
        )
        .map_err(|problem| Error::Usage(format!("{}: {problem}", path.display())))?;
        fs::write(path, updated).map_err(Error::io(format!("writing {}", path.display())))?;
        eprintln!("the table is in {}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let beside = || {
        arguments
            .result
            .parent()
            .unwrap_or(Path::new("."))
            .to_owned()
    };
    let page = files::render(&result, &arguments.out.unwrap_or_else(beside))?;
    println!("{}", Table(&result));
    eprintln!("the report is {}", page.display());
    Ok(ExitCode::SUCCESS)
}
