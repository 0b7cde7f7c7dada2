//! The run: one daemon after the other, and in each the parts that belong to it.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::act::Act;
use crate::cores::{self, Bedside};
use crate::daemon::Setup;
use crate::faults::FAULTS;
use crate::memory;
use crate::options::Options;
use crate::parts::{Group, Part, Setting, accounts_of};
use crate::silence::SILENCES;
use crate::stage::{PBXS, Shared, Stage};
use crate::table::Row;
use crate::tally::Tally;
use crate::texts::TEXTS;
use crate::ways::{CONTROLS, WAYS};

/// How long after the first 200 the password may still be there.
const PASSWORD_LIFE: Duration = Duration::from_secs(5);

static PARTS: [&[Part]; 5] = [&WAYS, &FAULTS, &SILENCES, &TEXTS, &CONTROLS];

/// What a run has shown.
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    /// What has to hold beside zeros in the table: in words, and whether it does.
    pub(crate) checks: Vec<(String, bool)>,
}

/// Does everything, saying what.
///
/// # Errors
///
/// Something cannot be done at all, so that nothing would be proven.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let parts: Vec<&'static Part> = PARTS.into_iter().flatten().collect();
    let stage = Stage::build(options.binary.clone(), parts.len() * PBXS)?;
    let forms = stage.needles.prove()?;
    println!("  the search finds each of {forms} forms of {} secrets, cut and unaligned", stage.secrets.len());
    let stage = Arc::new(stage);
    let rows = parts.iter().enumerate().map(|(number, part)| {
        let accounts = accounts_of(number);
        let windows = stage.needles.windows_of(&accounts);
        Row::new(part, accounts, windows)
    });
    let wanted = |row: &Row| row.part.group == Group::Control || row.part.name.contains(&options.only);
    let mut rows: Vec<Row> = rows.filter(wanted).collect();
    let mut checks = Vec::new();
    for setting in [Setting::Usual, Setting::Debug, Setting::Ending, Setting::Keeping] {
        let mut own: Vec<&mut Row> = rows.iter_mut().filter(|row| row.part.setting == setting).collect();
        if own.is_empty() {
            continue;
        }
        // What waits for a daemon in vain panics. The other daemons have their say all the same.
        let performed = panic::catch_unwind(AssertUnwindSafe(|| perform(&stage, setting, &mut own, options)));
        match performed.unwrap_or_else(|_| Err(anyhow!("see above"))) {
            Ok(own) => checks.extend(own),
            Err(error) => checks.push((format!("daemon \"{}\": {error:#}", setting.name()), false)),
        }
    }
    Ok(Outcome { rows, checks })
}

fn perform(
    stage: &Shared,
    setting: Setting,
    rows: &mut [&mut Row],
    options: &Options,
) -> anyhow::Result<Vec<(String, bool)>> {
    let name = setting.name();
    let setup = match setting {
        Setting::Usual => Setup { tables: "", cores: true },
        Setting::Debug => Setup { tables: "[process]\ndumpable = true\ndebug_faults = true", cores: true },
        Setting::Ending => Setup::default(),
        Setting::Keeping => Setup { tables: "[vault]\nkeep_a_copy = true", cores: false },
    };
    let mut act = Act::begin(stage, name, &setup)?;
    let ready = act.daemon.ready(stage).unwrap_or_default();
    println!("  daemon \"{name}\", process {}, says of itself: {ready}", act.daemon.pid());
    let before = act.search()?;
    let everybody: Vec<usize> = (0..stage.secrets.len()).collect();
    ensure!(before.all_hits(&everybody) == 0, "windows occur in a daemon that was given nothing: they are not unique");
    println!(
        "  {:.1} MB of memory, and {} kB that even root cannot read",
        before.bytes as f64 / 1e6,
        before.withheld / 1024
    );

    hold(&mut act, rows)?;
    if setting == Setting::Ending {
        return end(act, rows, options);
    }
    for late in [false, true] {
        for row in rows.iter_mut().filter(|row| row.part.late == late) {
            (row.part.end)(&mut act, &row.accounts).with_context(|| row.part.name)?;
            row.note_after(&act.search_settled(row.to_be_gone())?);
        }
    }
    let last = act.search()?;
    let core = cores::take(&act.daemon)?;
    let in_core = searched_core(stage, &core, options)?;
    let in_files = search_files(&act)?;
    for row in rows.iter_mut() {
        row.note_after(&last);
        row.note_core(&in_core);
        row.note_files(&in_files);
    }
    match setting {
        Setting::Usual => no_core(act, rows, options),
        Setting::Debug => kernel_core(act, rows, options),
        Setting::Ending | Setting::Keeping => Ok(Vec::new()),
    }
}

/// Hands over what is to be held, has it refreshed and called, waits, and looks.
fn hold(act: &mut Act, rows: &mut [&mut Row]) -> anyhow::Result<()> {
    for row in rows.iter_mut() {
        (row.part.begin)(act, &row.accounts).with_context(|| row.part.name)?;
    }
    let held = |row: &&mut &mut Row| row.accounts.iter().all(|account| act.holds(*account));
    for row in rows.iter_mut().filter(held) {
        let (first, others) = row.accounts.split_first().context("every part has accounts")?;
        act.take_call(*first).with_context(|| row.part.name)?;
        others.iter().try_for_each(|account| act.miss_call(*account)).with_context(|| row.part.name)?;
        act.wait_refreshed(&row.accounts);
    }
    thread::sleep((act.last_hand_over + PASSWORD_LIFE).saturating_duration_since(Instant::now()));
    let secret: Vec<usize> = rows.iter_mut().filter(held).flat_map(|row| row.to_be_gone().to_vec()).collect();
    let live = act.search_settled(&secret)?;
    for row in rows.iter_mut().filter(held) {
        row.note_live(&live);
    }
    Ok(())
}

/// The way that ends the daemon: its memory is looked at when it has nothing more to do.
fn end(mut act: Act, rows: &mut [&mut Row], options: &Options) -> anyhow::Result<Vec<(String, bool)>> {
    let bedside = Bedside::sit_down(&act.daemon)?;
    act.daemon.process.terminate();
    let status = act.daemon.process.wait();
    let core = bedside.core()?;
    let in_core = searched_core(&act.stage, &core, options)?;
    let in_files = search_files(&act)?;
    for row in rows {
        row.bytes = in_core.bytes;
        row.note_core(&in_core);
        row.note_files(&in_files);
    }
    Ok(vec![("a daemon ended by SIGTERM has the exit code 0".to_owned(), status.success())])
}

/// The kernel writes no core of a daemon that is configured as usual, however large a core it might write.
fn no_core(act: Act, rows: &mut [&mut Row], options: &Options) -> anyhow::Result<Vec<(String, bool)>> {
    let crash = cores::crash(act.daemon)?;
    if let Some(core) = &crash.core {
        let in_core = searched_core(&act.stage, core, options)?;
        rows.iter_mut().for_each(|row| row.note_core(&in_core));
    }
    let none = !crash.dumped && crash.core.is_none();
    Ok(vec![("by default a daemon that crashes (SIGABRT) leaves no core".to_owned(), none)])
}

/// The kernel's core of a daemon that lets it.
fn kernel_core(act: Act, rows: &mut [&mut Row], options: &Options) -> anyhow::Result<Vec<(String, bool)>> {
    let crash = cores::crash(act.daemon)?;
    let mut words = "with `[process] dumpable = true` a daemon that crashes leaves a core".to_owned();
    match &crash.core {
        Some(core) => {
            let in_core = searched_core(&act.stage, core, options)?;
            words.push_str(&format!("; all {:.1} MB of it were searched", in_core.bytes as f64 / 1e6));
            rows.iter_mut().for_each(|row| row.note_core(&in_core));
        }
        None => {
            let pattern = cores::kernel_pattern();
            words.push_str(&format!("; the kernel gave it to \"{pattern}\", so the core that gdb took was searched"));
        }
    }
    Ok(vec![(words, crash.dumped)])
}

fn searched_core(stage: &Stage, core: &std::path::Path, options: &Options) -> anyhow::Result<Tally> {
    let tally = memory::search_file(core, &stage.needles)?;
    if !options.keep {
        fs::remove_file(core)?;
    }
    Ok(tally)
}

fn search_files(act: &Act) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for file in act.daemon.files()? {
        tally.join(memory::search_file(&file, &act.stage.needles)?);
    }
    Ok(tally)
}
