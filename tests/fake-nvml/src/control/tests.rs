use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> Command {
    line.parse().unwrap()
}

fn refused(line: &str) -> String {
    line.parse::<Command>().unwrap_err().to_string()
}

#[test]
fn commands_of_the_table_are_understood() {
    assert_eq!(parse("xid 3 79"), Command::Xid { gpus: Gpus::One(3), code: 79, instance: None });
    assert_eq!(parse("xid * 43 7 0"), Command::Xid { gpus: Gpus::All, code: 43, instance: Some((7, 0)) });
    assert_eq!(parse("event 0 0x1000 5"), Command::Event { gpus: Gpus::One(0), kind: 0x1000, data: 5 });
    assert_eq!(parse("  lose 3   # gone"), Command::Lose(Gpus::One(3)));
    assert_eq!(parse("add 5"), Command::Add(Gpus::One(5)));
    assert_eq!(
        parse("ecc 1 uncorrected 2"),
        Command::Ecc { gpus: Gpus::One(1), severity: Severity::Uncorrected, count: 2 }
    );
    assert_eq!(
        parse("remap 1 0 2 pending"),
        Command::Remap {
            gpus: Gpus::One(1),
            rows: RemappedRows { corrected: 0, uncorrected: 2, pending: true, failed: false }
        }
    );
    assert_eq!(
        parse("throttle 2 hw_thermal,hw_slowdown 600"),
        Command::Throttle { gpus: Gpus::One(2), throttle: Some(Throttle { reasons: 0x48, clock_mhz: 600 }) }
    );
    assert_eq!(parse("throttle 2 off"), Command::Throttle { gpus: Gpus::One(2), throttle: None });
    let small = Profile { compute_slices: 1, memory_gb: 10 };
    assert_eq!(
        parse("mig 0 on 1g.10gb 7"),
        Command::Mig { gpus: Gpus::One(0), layout: Some(vec![(small, 7)]) }
    );
    assert_eq!(parse("mig 0 on"), Command::Mig { gpus: Gpus::One(0), layout: Some(Vec::new()) });
    assert_eq!(parse("mig 0 pending off"), Command::MigPending { gpus: Gpus::One(0), enabled: false });
    assert_eq!(parse("link 0 * down"), Command::Link { gpus: Gpus::One(0), link: None, up: false });
    assert_eq!(
        parse("fabric in_progress"),
        Command::Fabric { state: FabricState::InProgress, cluster: None }
    );
    assert_eq!(
        parse("link-errors 2 5 crc 9"),
        Command::LinkErrors { gpus: Gpus::One(2), link: Some(5), error: LinkError::Crc, count: 9 }
    );
    for (word, error) in LinkError::WORDS {
        let all = Command::LinkErrors { gpus: Gpus::All, link: None, error, count: 1 };
        assert_eq!(parse(&format!("link-errors * * {word} 1")), all);
    }
    assert_eq!(parse("pcie-replays 2 4"), Command::PcieReplays { gpus: Gpus::One(2), count: 4 });
    assert_eq!(parse("unload"), Command::Unload);
    assert_eq!(parse("upgrade 590.10"), Command::Upgrade("590.10".to_owned()));
    let power = Calls::Named("nvmlDeviceGetPowerUsage".to_owned());
    assert_eq!(
        parse("hang nvmlDeviceGetPowerUsage"),
        Command::Hang { calls: power.clone(), gpus: Gpus::All }
    );
    assert_eq!(parse("release"), Command::Release(Calls::Any));
    assert_eq!(
        parse("cost nvmlDeviceGetPowerUsage 5000"),
        Command::Cost { calls: power.clone(), microseconds: 5000 }
    );
    for code in ["GPU_IS_LOST", "15"] {
        let command = parse(&format!("fail nvmlDeviceGetPowerUsage {code} 3"));
        assert_eq!(
            command,
            Command::Fail { calls: power.clone(), gpus: Gpus::One(3), code: Code::GPU_IS_LOST }
        );
    }
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    for (line, reason) in [
        ("", "a command is missing"),
        ("explode 3", "the command \"explode\" is not known"),
        ("xid 3", "an XID is missing"),
        ("xid three 79", "neither a GPU's number nor *"),
        ("lose 3 now", "\"now\" is one word too many"),
        ("hang PowerUsage", "neither a C function"),
        ("slow -1", "is not a factor"),
        ("slow nan", "is not a factor"),
        ("recovery 0 8", "at most 7"),
        ("throttle 0 tired 5", "are not reasons"),
        ("mig 0 on 1g.10gb 8", "at most 7"),
        ("mig 0 on 5g.40gb 1", "is not a profile"),
        ("mig 0 on 3g.40gb 3", "9 compute slices"),
        ("upgrade soon", "is not a version"),
        ("fail nvmlShutdown SUCCESS", "neither an error's number nor its name"),
        ("link 0 1 sideways", "neither up nor down"),
        ("fabric completed me 1", "hexadecimal digits"),
    ] {
        assert!(refused(line).contains(reason), "{line}: {}", refused(line));
    }
}

proptest! {
    // Invariant: no line makes the parser panic, and a refusal repeats the line.
    #[test]
    fn any_line_is_answered(
        line in "(xid|ecc-rate|remap|mig|throttle|link|fabric|hang|fail|cost|slow|event|\\PC{0,9})( [-*0-9a-z.,]{0,12}){0,6}"
    ) {
        if let Err(error) = line.parse::<Command>() {
            prop_assert!(error.to_string().contains("is no command"));
        }
    }
}
