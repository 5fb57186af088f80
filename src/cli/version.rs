//! `tidegate version`: which build this is, and what the kernel offers it.

use serde_json::{Map, Value, json};
use tidegate_core::config::model::Ring;
use tidegate_shard::{HostUnfit, KernelFeatures};

use super::Format;
use crate::exit::Failure;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate version
  tidegate version --format json | jq .kernel.features")]
pub(super) struct Args {
    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The commit, if the build was told.
const COMMIT: Option<&str> = option_env!("TIDEGATE_COMMIT");

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // A host that cannot run shards is something to print here, not a failure.
    let kernel = tidegate_shard::probe(&Ring::default());
    match args.format {
        Format::Json => super::print_json(&to_json(&kernel)),
        Format::Human => super::print(&to_text(&kernel)),
    }
}

fn to_text(kernel: &Result<KernelFeatures, HostUnfit>) -> String {
    let mut text = format!(
        "tidegate {}\n  commit    {}\n  target    {} {}\n",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    );
    match kernel {
        Ok(kernel) => {
            text += &format!("  kernel    {}\n  io_uring\n", kernel.kernel);
            for (feature, there) in &kernel.features {
                text += &format!("    {} {feature}\n", if *there { '✓' } else { '-' });
            }
        }
        Err(unfit) => {
            text += &format!(
                "  io_uring  {}\n    help: {}\n",
                unfit.problem, unfit.remedy
            );
        }
    }
    text
}

fn to_json(kernel: &Result<KernelFeatures, HostUnfit>) -> Value {
    let kernel = match kernel {
        Ok(kernel) => {
            let features: Map<String, Value> = kernel
                .features
                .iter()
                .map(|(feature, there)| ((*feature).to_owned(), json!(there)))
                .collect();
            json!({ "release": kernel.kernel, "fit": true, "features": features })
        }
        Err(unfit) => json!({ "fit": false, "problem": unfit.problem, "remedy": unfit.remedy }),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "kernel": kernel,
    })
}
