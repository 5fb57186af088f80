//! `tidegate schema`: the JSON Schema of the configuration.

use tidegate_core::config;

use crate::exit::Failure;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate schema > tidegate.schema.json
  # first line of a file, for editors with a YAML language server:
  # yaml-language-server: $schema=tidegate.schema.json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Result<(), Failure> {
    super::print_json(&config::json_schema())
}
