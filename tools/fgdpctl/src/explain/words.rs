// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the module's reasons mean, and their cures.

/// Why a TCP connection is not carried, and what to do about it.
pub fn reason(name: &str) -> (&'static str, &'static str) {
    match name {
        "off" => (
            "net.fgdp.inet was set to 0",
            "`sysctl net.fgdp.inet=1`, then connect again",
        ),
        "taken" => (
            "the socket is kTLS's, MPTCP's, a sockmap's, or the kernel's own",
            "connect without that if you can; else it stays with TCP",
        ),
        "early" => (
            "bytes were on their way before TCP said that it is established",
            "connect without TCP Fast Open, and send when the connection is there",
        ),
        "no_channel" => (
            "no channel to the peer was up",
            "connect again: the channel was asked for",
        ),
        "no_memory" => (
            "there were too many connections, or no memory",
            "connect again when others have ended, or give the guest more memory",
        ),
        "refused" => (
            "the peer refused",
            "`sysctl net.fgdp.inet=1` in the peer, too, then connect again",
        ),
        "program" => (
            "the program did what only TCP can do",
            "see \"What stays with TCP\" in Documentation/networking/fgdp.rst",
        ),
        "peer" => (
            "the peer went back to TCP",
            "`fgdpctl connections` and `fgdpctl stats` in the peer have its reason",
        ),
        "policy" => (
            "the lists of ports or cgroups say so",
            "`sysctl -a -r '^net.fgdp.inet_'` shows the lists",
        ),
        "channel_end" => (
            "the channel ended",
            "connect again when `fgdpctl peers` shows the channel up",
        ),
        _ => (
            "a reason that this fgdpctl does not know",
            "use fgdpctl of the module's version",
        ),
    }
}

/// Why a channel ended, and what to do about it.
pub fn last_down(name: &str) -> (&'static str, &'static str) {
    const BY_ITSELF: &str = "it opens again by itself; look at it with `fgdpctl peers`";
    match name {
        "none" => (
            "there was none yet",
            "it opens by itself; try again in a moment",
        ),
        "peer_gone" => ("the peer's guest went", BY_ITSELF),
        "peer_closed" => ("the peer closed it", BY_ITSELF),
        "unload" => ("the module went", BY_ITSELF),
        "generation" => ("the peer's slot was cleared", BY_ITSELF),
        "host" => ("the host refused a call", "see fgdpd's log on the host"),
        "no_frames" => (
            "a slot or quota was exhausted",
            "give the guests larger slots in fgdpd's configuration",
        ),
        "timeout" => (
            "the peer did not answer",
            "see the peer's kernel log (`dmesg`); connecting again asks once more",
        ),
        "abi" => (
            "the peer speaks another version",
            "load modules of the same version in both guests",
        ),
        _ => (
            "a rule was broken",
            "see both guests' kernel logs (`dmesg`), and load modules of the same version in both",
        ),
    }
}
