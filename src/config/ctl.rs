//! The command line of `sessiond ctl`: what an operator says to a node that runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::group::peer;
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
    /// Make the group larger by a node. It joins as soon as it is started with --peers that name the
    /// others.
    AddNode {
        /// Its --node-name, and where the others reach its --peer-listen.
        #[arg(value_name = "NAME=HOST:PORT")]
        node: String,
    },
    /// Make the group smaller by a node, whether it lives or not.
    RemoveNode {
        /// Its --node-name.
        name: String,
    },
    /// Put a node in the place of another; or, with one argument, have a dead one come back under its
    /// name at another address.
    ReplaceNode {
        /// The --node-name of the one that goes.
        #[arg(value_name = "OLD")]
        old: String,
        /// The one that comes.
        #[arg(value_name = "NAME=HOST:PORT")]
        new: Option<String>,
    },
    /// End when the clients have gone, and be started anew by the supervisor, or by systemd. Returns
    /// when the new server is a member.
    Restart(Patience),
    /// Give way to the program that lies now where the present one was started from. Returns when
    /// that is a member.
    Upgrade(Patience),
}

#[derive(Clone, Debug, Args)]
struct Patience {
    /// Do not wait for the new server.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the new server; then this ends with an error, and the order goes on.
    #[arg(long, value_name = "MS", default_value_t = 180_000, conflicts_with = "no_wait")]
    timeout: u64,
}

impl Patience {
    fn of(order: &Order) -> Option<Duration> {
        match order {
            Order::Restart(patience) | Order::Upgrade(patience) => {
                (!patience.no_wait).then(|| Duration::from_millis(patience.timeout))
            }
            _ => None,
        }
    }
}

impl Order {
    /// What is said to the node; words are parted by tabs where names may be among them.
    fn line(self) -> Result<String, String> {
        match self {
            Self::Status => Ok("status".into()),
            Self::ForceSolo => Ok("force-solo".into()),
            Self::Restart(_) => Ok("restart".into()),
            Self::Upgrade(_) => Ok("upgrade".into()),
            Self::AddNode { node } => {
                let (name, address) = peer("add-node", &node)?;
                Ok(format!("add-node\t{}\t{address}", one_word(&name)?))
            }
            Self::RemoveNode { name } => Ok(format!("remove-node\t{}", one_word(&name)?)),
            Self::ReplaceNode { old, new } => {
                let (name, address) = peer("replace-node", new.as_deref().unwrap_or(&old))?;
                let old = if new.is_some() { &*old } else { &*name };
                let (old, name) = (one_word(old)?, one_word(&name)?);
                Ok(format!("replace-node\t{old}\t{name}\t{address}"))
            }
        }
    }
}

fn one_word(name: &str) -> Result<&str, String> {
    match name.contains(char::is_control) {
        false => Ok(name),
        true => Err(format!("{name:?}: a name has no tabs or line ends in it")),
    }
}

/// `arguments` without the program, from `ctl` on.
pub(super) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    match Flags::try_parse_from(arguments) {
        Ok(Flags { state_dir, order }) => {
            let patience = Patience::of(&order);
            let line = order.line()?;
            Ok(Command::Tell { state_dir, line, patience })
        }
        Err(error) if !error.use_stderr() => Ok(Command::Print(error.to_string())),
        Err(error) => Err(one_line(&error.to_string())),
    }
}
