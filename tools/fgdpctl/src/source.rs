// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the answers come from.

use std::path::Path;

use anyhow::{bail, Result};

use crate::guest::{Guest, PROC};
use crate::host::{Host, SOCKET};
use crate::model::Look;
use crate::What;

/// A guest's module or the host's daemon.
#[derive(Debug)]
pub enum Source {
    /// The module in this kernel.
    Guest(Guest),
    /// fgdpd.
    Host(Host),
}

impl Source {
    /// What the user named, else what is there: the module before the daemon.
    ///
    /// # Errors
    ///
    /// When nothing was named and neither is there.
    pub fn find(socket: Option<&Path>, proc: Option<&Path>) -> Result<Self> {
        Self::among(socket, proc, Path::new(PROC), Path::new(SOCKET))
    }

    fn among(
        socket: Option<&Path>,
        proc: Option<&Path>,
        default_proc: &Path,
        default_socket: &Path,
    ) -> Result<Self> {
        match (socket, proc) {
            (Some(socket), _) => Ok(Self::Host(Host::new(socket.to_owned()))),
            (None, Some(dir)) => Ok(Self::Guest(Guest::Listings(dir.to_owned()))),
            _ if default_proc.exists() => Ok(Self::Guest(Guest::Kernel)),
            _ if default_socket.exists() => Ok(Self::Host(Host::new(default_socket.to_owned()))),
            _ => bail!(
                "neither {} nor {} is there: in a guest load the module (`modprobe fgdp`), on the host start fgdpd \
                 or give its socket with --socket",
                default_proc.display(),
                default_socket.display()
            ),
        }
    }

    /// Looks at `what`.
    ///
    /// # Errors
    ///
    /// When the source does not answer, or not that.
    pub fn look(&self, what: What) -> Result<Look> {
        match self {
            Self::Guest(guest) => guest.look(what),
            Self::Host(host) => host.look(what),
        }
    }

    /// The daemon, for what only it can do.
    ///
    /// # Errors
    ///
    /// In a guest.
    pub fn host(&self, command: &str) -> Result<&Host> {
        match self {
            Self::Host(host) => Ok(host),
            Self::Guest(_) => {
                bail!("`{command}` is fgdpd's: run it on the host, or give fgdpd's socket with --socket")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_user_decides_then_the_module_then_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, sock) = (dir.path().join("proc"), dir.path().join("sock"));
        let find = |s: Option<&Path>, p: Option<&Path>| Source::among(s, p, &proc, &sock);
        let error = find(None, None).unwrap_err().to_string();
        assert!(
            error.contains("modprobe") && error.contains("fgdpd"),
            "{error}"
        );
        fs::write(&sock, "").unwrap();
        assert!(matches!(find(None, None), Ok(Source::Host(_))));
        fs::create_dir(&proc).unwrap();
        let guest = find(None, None).unwrap();
        assert!(matches!(guest, Source::Guest(_)));
        assert!(guest.host("kick").unwrap_err().to_string().contains("kick"));
        assert!(matches!(find(Some(&sock), None), Ok(Source::Host(_))));
        fs::remove_dir(&proc).unwrap();
        assert!(matches!(find(None, Some(&proc)), Ok(Source::Guest(_))));
    }
}
