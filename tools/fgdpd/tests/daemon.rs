// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The daemon as its operator sees it: configuration, checks, signals, control socket.
#![allow(missing_docs)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use common::driver::{connect, Guest};
use common::{two_guests, until, Daemon};
use nix::sys::signal::Signal;
use serde_json::json;

fn fgdpd(config: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fgdpd.toml");
    std::fs::write(&path, format!("run_dir = {:?}\n{config}", dir.path())).unwrap();
    Command::new(env!("CARGO_BIN_EXE_fgdpd"))
        .arg("--config")
        .arg(&path)
        .args(args)
        .output()
        .unwrap()
}

/// What `--check` says of a configuration with mistakes.
fn problems(config: &str) -> String {
    let output = fgdpd(config, &["--check"]);
    assert!(!output.status.success(), "accepted: {config}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn mistakes_are_named_with_line_and_cure() {
    let good = two_guests("");
    assert!(fgdpd(&good, &["--check"]).status.success());
    let cases = [
        ("", "", "no group: add [[group]]"),
        (
            "addresses = [\"10.77.0.2\"]",
            "addresses = [\"10.77.0.1\"]",
            ":20: address 10.77.0.1 is already given to guest `a`",
        ),
        (
            "addresses = [\"10.77.0.2\"]",
            "addresses = [\"::ffff:10.77.0.1\"]",
            "is already given to guest `a`",
        ),
        (
            "addresses = [\"10.77.0.2\"]",
            "addresses = [\"224.0.0.1\"]",
            "give a unicast address",
        ),
        (
            "addresses = [\"10.77.0.2\"]",
            "adresses = []",
            ":20: unknown field `adresses`",
        ),
        (
            "000000000002",
            "000000000001",
            ":16: guest `a` has the same id: make a new one with uuidgen",
        ),
        ("6e0f7a44-0b6c-4a5e-9a57-000000000002", "6e0f7a44", ":16: "),
        (
            "6e0f7a44-0b6c-4a5e-9a57-000000000002",
            "00000000-0000-0000-0000-000000000000",
            ":16: id 00000000-0000-0000-0000-000000000000 means any guest: make another with uuidgen",
        ),
        (
            "6e0f7a44-0b6c-4a5e-9a57-000000000002",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ":16: id ffffffff-ffff-ffff-ffff-ffffffffffff means the guest itself: make another with uuidgen",
        ),
        (
            "name = \"b\"",
            "name = \"a\"",
            ":15: guest `a` exists twice",
        ),
        (
            "name = \"b\"",
            "name = \"b/../c\"",
            "must be 1 to 31 letters",
        ),
        (
            "slot_size = \"16M\"\n  addresses = [\"10.77.0.2\"]",
            "slot_size = \"3M\"",
            ":19: slot_size must be a multiple of 2M and at least 16M",
        ),
        (
            "slot_size = \"16M\"\n  addresses = [\"10.77.0.2\"]",
            "slot_size = \"lots\"",
            "write it like \"256M\"",
        ),
        (
            "slot_size = \"16M\"\n  addresses = [\"10.77.0.2\"]",
            "peer_quota = \"1G\"",
            "peer_quota is larger than the slot",
        ),
        (
            "  group = \"g\"\n  slot_size = \"16M\"\n  addresses = [\"10.77.0.2\"]",
            "group = \"h\"",
            ":18: there is no group `h`",
        ),
        (
            "slot_size = \"16M\"\n  addresses = [\"10.77.0.2\"]",
            "socket = \"a-g.sock\"",
            "is already used at line",
        ),
        ("spare = \"32M\"", "lanes = 5", ":5: lanes must be 1 to 4"),
        (
            "spare = \"32M\"",
            "doorbell = \"bell\"",
            ":5: unknown variant `bell`",
        ),
        ("spare = \"32M\"", "spare = ", ":5: "),
    ];
    for (from, to, said) in cases {
        let config = if from.is_empty() {
            String::new()
        } else {
            good.replacen(from, to, 1)
        };
        assert_ne!(config, good, "case `{to}` changes nothing");
        let text = problems(&config);
        assert!(text.contains(said), "`{to}` gives:\n{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn more_memory_than_the_host_has_is_refused() {
    let text = problems(&two_guests("").replacen("spare = \"32M\"", "spare = \"900000G\"", 1));
    assert!(
        text.contains("the host has") && text.contains("lower slot_size"),
        "{text}"
    );
}

#[test]
fn huge_pages_that_are_not_there_are_refused() {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = info
        .lines()
        .find_map(|l| l.strip_prefix("HugePages_Free:"))
        .map_or("0", str::trim);
    if free.parse::<u64>().unwrap() * 2 >= 66 {
        eprintln!("skipped: this host has free huge pages");
        return;
    }
    let output = fgdpd(&two_guests("huge = \"always\""), &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("raise vm.nr_hugepages by 33"),
        "{text}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_fgdpd"))
        .args(["--config", "/nonexistent/x.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.contains("/nonexistent/x.toml: cannot be read") && text.contains("--config"),
        "{text}"
    );
}

#[test]
fn qemu_arguments_are_printed() {
    let output = fgdpd(&two_guests(""), &["--print-qemu-args", "a"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "pcie-root-port",
        "vfio-user-pci",
        "a-g.sock",
        "ivshmem-doorbell",
        "vectors=2",
        "x-msg-timeout",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = String::from_utf8(
        fgdpd(
            &two_guests("doorbell = \"trap\""),
            &["--print-qemu-args", "b"],
        )
        .stdout,
    )
    .unwrap();
    assert!(
        text.contains("b-g.sock") && !text.contains("ivshmem"),
        "{text}"
    );
    let output = fgdpd(&two_guests(""), &["--print-qemu-args", "zz"]);
    assert!(String::from_utf8(output.stderr)
        .unwrap()
        .contains("no guest `zz`"));
}

#[test]
fn sigterm_ends_in_order() {
    let mut daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::ready(&daemon, "a");
    let b = Guest::ready(&daemon, "b");
    assert!(a.event().starts_with("peer 2"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    // The guests were told.
    assert_eq!(a.event_text(), format!("peer 2 {}", b.config.generation));
    let left: Vec<_> = std::fs::read_dir(daemon.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["fgdpd.toml"], "sockets are left");
}

#[test]
fn a_second_daemon_does_not_take_the_sockets() {
    let daemon = Daemon::start(&two_guests(""));
    let output = Command::new(env!("CARGO_BIN_EXE_fgdpd"))
        .arg("--config")
        .arg(&daemon.config)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("is served by another process"),
        "{text}"
    );
    assert_eq!(daemon.status()["abi"], 1, "the first lives");
}

#[test]
fn a_dead_daemons_sockets_are_taken_over() {
    let daemon = Daemon::start(&two_guests(""));
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    let worker = daemon.worker();
    daemon.signal(Signal::SIGKILL);
    until("the worker to follow its supervisor", || {
        nix::sys::signal::kill(worker, None).err()
    });
    assert!(daemon.path("a-g.sock").exists());
    let output = Command::new(env!("CARGO_BIN_EXE_fgdpd"))
        .arg("--config")
        .arg(&daemon.config)
        .arg("--check")
        .output();
    assert!(output.unwrap().status.success(), "{config}");
    let mut again = daemon;
    again.restart();
    let _a = Guest::ready(&again, "a");
}

#[test]
fn sockets_have_the_configured_mode() {
    let daemon = Daemon::start(&format!("socket_mode = \"0600\"\n{}", two_guests("")));
    for name in ["a-g.sock", "control.sock", "g.doorbell.sock"] {
        let mode = std::fs::metadata(daemon.path(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

const THIRD: &str = r#"
[[guest]]
name = "c"
id = "6e0f7a44-0b6c-4a5e-9a57-000000000003"
  [[guest.device]]
  group = "g"
  slot_size = "16M"
  addresses = ["10.77.0.3"]
"#;

fn reload(daemon: &Daemon, config: &str) {
    daemon.set_config(config);
    daemon.signal(Signal::SIGHUP);
}

#[test]
fn sighup_adds_guests() {
    let daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::ready(&daemon, "a");
    reload(&daemon, &format!("{}{THIRD}", two_guests("")));
    until("the socket of c", || {
        daemon.path("c-g.sock").exists().then_some(())
    });
    let mut c = Guest::ready(&daemon, "c");
    assert_eq!(
        (c.config.slot, c.config.group_size),
        (3, a.config.group_size)
    );
    connect(&mut a, &mut c);
    // One more fits; the next does not, and then nothing changes.
    let fourth = THIRD
        .replace("\"c\"", "\"d\"")
        .replace("0003", "0004")
        .replace("0.3", "0.4");
    let fifth = THIRD
        .replace("\"c\"", "\"e\"")
        .replace("0003", "0005")
        .replace("0.3", "0.5");
    reload(
        &daemon,
        &format!("{}{THIRD}{fourth}{fifth}", two_guests("")),
    );
    reload(&daemon, &format!("{}{THIRD}{fourth}", two_guests("")));
    until("the socket of d", || {
        daemon.path("d-g.sock").exists().then_some(())
    });
    assert!(!daemon.path("e-g.sock").exists());
}

#[test]
fn sighup_removes_only_guests_that_are_not_there() {
    let daemon = Daemon::start(&format!("{}{THIRD}", two_guests("")));
    let mut a = Guest::ready(&daemon, "a");
    let c = Guest::ready(&daemon, "c");
    reload(&daemon, &two_guests(""));
    // Refused as a whole: b is still there afterwards, and so is c.
    let _b = Guest::ready(&daemon, "b");
    assert_eq!(daemon.member("peers", "c")["state"], "ready");
    drop(c);
    until("c to be absent", || {
        (daemon.member("peers", "c")["state"] == "absent").then_some(())
    });
    reload(&daemon, &two_guests(""));
    until("the socket of c to go", || {
        (!daemon.path("c-g.sock").exists()).then_some(())
    });
    assert_eq!(
        a.call(&fgdp_proto::proto::wire::Request::Stats).0,
        fgdp_proto::proto::wire::Status::Ok
    );
}

#[test]
fn sighup_refuses_what_needs_a_restart() {
    let daemon = Daemon::start(&two_guests(""));
    for more in ["lanes = 1", "doorbell = \"trap\"", "huge = \"never\""] {
        reload(&daemon, &format!("{}{THIRD}", two_guests(more)));
    }
    // Signals of one kind may become one: the next that is taken shows that those before were not.
    reload(
        &daemon,
        &format!("{}{}", two_guests(""), THIRD.replace("\"c\"", "\"d\"")),
    );
    until("the socket of d", || {
        daemon.path("d-g.sock").exists().then_some(())
    });
    assert!(!daemon.path("c-g.sock").exists());
}

#[test]
fn sighup_takes_addresses_away() {
    let daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::ready(&daemon, "a");
    let addr = std::net::Ipv4Addr::new(10, 77, 0, 1)
        .to_ipv6_mapped()
        .octets();
    let add = fgdp_proto::proto::wire::Request::AddrAdd(addr);
    assert_eq!(a.call(&add).0, fgdp_proto::proto::wire::Status::Ok);
    assert_eq!(
        daemon.member("peers", "a")["addresses"],
        json!(["10.77.0.1"])
    );
    reload(&daemon, &two_guests("").replacen("\"10.77.0.1\", ", "", 1));
    until("the address to be withdrawn", || {
        (daemon.member("peers", "a")["addresses"] == json!([])).then_some(())
    });
    assert_eq!(a.call(&add).0, fgdp_proto::proto::wire::Status::NotAllowed);
}

#[test]
fn the_control_socket_answers_nonsense_with_errors() {
    let daemon = Daemon::start(&two_guests(""));
    for (command, said) in [
        (json!({"command": "dance"}), "dance"),
        (json!(7), "invalid type"),
        (json!({"command": "kick"}), "guest"),
    ] {
        let answer = daemon.ask(&command);
        assert!(
            answer["error"].as_str().is_some_and(|e| e.contains(said)),
            "{command}: {answer}"
        );
    }
    let status = daemon.status();
    assert_eq!(
        (&status["attached"], &status["groups"][0]["members"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(
        daemon.ask(&json!({"command": "grants"})),
        json!({"grants": []})
    );
}
