//! The command line of `sessiond ctl`: what an operator says to a node that runs.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{Command, one_line};

/// Speaks to the node of this machine that has that state directory.
#[derive(Debug, Parser)]
#[command(name = "sessiond ctl", disable_help_subcommand = true)]
struct Flags {
    /// The node's --state-dir.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Where the node stands among the others: `stats replication`, and who votes.
    Status,
    /// Go on without the others, which are dead. If they are not, what they confirm from now on is
    /// lost when they meet this node again. A node that has no data begins with nothing.
    ForceSolo,
    /// End when the clients have gone, and be started anew by the supervisor, or by systemd.
    Restart,
    /// Give way to the program that lies now where the present one was started from.
    Upgrade,
}

/// `arguments` without the program, from `ctl` on.
pub(super) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    match Flags::try_parse_from(arguments) {
        Ok(Flags { state_dir, order }) => {
            let line = match order {
                Order::Status => "status",
                Order::ForceSolo => "force-solo",
                Order::Restart => "restart",
                Order::Upgrade => "upgrade",
            };
            Ok(Command::Tell { state_dir, line })
        }
        Err(error) if !error.use_stderr() => Ok(Command::Print(error.to_string())),
        Err(error) => Err(one_line(&error.to_string())),
    }
}
