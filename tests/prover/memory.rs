//! What another process holds in memory: every page it has, readable to itself or not, while it stands still.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::needles::Needles;
use crate::process::PATIENCE;
use crate::tally::{Residue, Tally};

/// How much is read at once.
const STRETCH: usize = 4 << 20;

/// Regions that the kernel gives to nobody but their owner, or that hold nothing of the process.
const WITHHELD: [&str; 4] = ["[vvar]", "[vvar_vclock]", "[vsyscall]", "/secretmem (deleted)"];

/// Searches all memory of a process, which is stopped meanwhile.
///
/// # Errors
///
/// The memory cannot be read: says who could.
pub(crate) fn search(process: u32, needles: &Needles) -> anyhow::Result<Tally> {
    let memory = File::open(format!("/proc/{process}/mem")).with_context(|| not_permitted(process))?;
    let _still = Still::hold(process)?;
    let regions = regions(process)?;
    let mut tally = Tally::default();
    for stretch in stretches(process, &regions)? {
        search_stretch(&memory, &stretch, &regions, needles, &mut tally)?;
    }
    ensure!(tally.bytes > 1 << 20, "process {process} has no megabyte of memory: is it there at all?");
    Ok(tally)
}

/// Searches a file, a core dump for one.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn search_file(path: &std::path::Path, needles: &Needles) -> anyhow::Result<Tally> {
    let file = File::open(path).with_context(|| format!("{} cannot be searched", path.display()))?;
    let mut tally = Tally::default();
    let name = path.display().to_string();
    let end = usize::try_from(file.metadata()?.len())?;
    let (mut buffer, mut at) = (vec![0; STRETCH + needles.overlap()], 0);
    while at < end {
        let length = (end - at).min(buffer.len());
        let bytes = &mut buffer[..length];
        file.read_exact_at(bytes, at as u64).with_context(|| format!("{name} cannot be read"))?;
        let own = if at + length == end { length } else { STRETCH };
        note(bytes, own, at, needles, &mut tally, |_| name.clone());
        at += own;
    }
    tally.bytes += end;
    Ok(tally)
}

fn not_permitted(process: u32) -> String {
    format!(
        "the memory of process {process} cannot be opened. Unless its configuration says `[process] dumpable = true`, the \
         daemon's memory is for root alone: run this as root (sudo -E scripts/prove-erasure)"
    )
}

/// A process that stands still while this is held.
struct Still(Pid);

impl Still {
    fn hold(process: u32) -> anyhow::Result<Self> {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::STOP).with_context(|| format!("process {process} cannot be stopped"))?;
        let still = Self(pid);
        let deadline = Instant::now() + PATIENCE;
        while !all_stopped(process)? {
            ensure!(Instant::now() < deadline, "process {process} does not stand still");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(still)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // A process that has ended meanwhile needs no leave to go on.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn all_stopped(process: u32) -> anyhow::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let state = fs::read_to_string(thread?.path().join("stat"))?;
        // The name of a thread stands in parentheses and may hold anything.
        let state = state.rsplit_once(") ").context("no state of a thread")?.1;
        if !state.starts_with(['T', 't']) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A line of /proc/PID/maps.
struct Region {
    begin: usize,
    end: usize,
    name: String,
}

fn regions(process: u32) -> anyhow::Result<Vec<Region>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).with_context(|| not_permitted(process))?;
    maps.lines().map(|line| region(line).with_context(|| format!("no region: {line}"))).collect()
}

fn region(line: &str) -> Option<Region> {
    let (range, rest) = line.split_once(' ')?;
    let (begin, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let mut fields = rest.splitn(5, ' ');
    let protection = fields.next()?;
    let name = fields.nth(3).unwrap_or_default().trim();
    let name = if name.is_empty() { "anonymous memory" } else { name };
    Some(Region { begin: address(begin)?, end: address(end)?, name: format!("{name} {protection}") })
}

/// Pages side by side that the process has, in memory or in swap.
struct Stretch {
    begin: usize,
    end: usize,
}

/// A page that was never touched, or was given back, holds nothing: only what there is is searched, and that is searched
/// even where the process has forbidden itself to read it.
fn stretches(process: u32, regions: &[Region]) -> anyhow::Result<Vec<Stretch>> {
    let page = page_size()?;
    let pages = File::open(format!("/proc/{process}/pagemap")).with_context(|| not_permitted(process))?;
    let mut stretches: Vec<Stretch> = Vec::new();
    for region in regions.iter().filter(|region| !region.name.starts_with("[vsyscall]")) {
        let mut entries = vec![0; (region.end - region.begin) / page * 8];
        pages.read_exact_at(&mut entries, (region.begin / page * 8) as u64)?;
        for (number, entry) in entries.chunks_exact(8).enumerate() {
            // Bit 7 of the last byte: present; bit 6: swapped (Documentation/admin-guide/mm/pagemap.rst).
            if entry[7] & 0xc0 == 0 {
                continue;
            }
            let begin = region.begin + number * page;
            match stretches.last_mut() {
                Some(last) if last.end == begin => last.end += page,
                _ => stretches.push(Stretch { begin, end: begin + page }),
            }
        }
    }
    Ok(stretches)
}

/// As the kernel told this very process (getauxval(3), AT_PAGESZ).
fn page_size() -> anyhow::Result<usize> {
    const AT_PAGESZ: u64 = 6;
    let words = fs::read("/proc/self/auxv")?;
    let mut words = words.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name == AT_PAGESZ {
            return Ok(usize::try_from(value)?);
        }
    }
    bail!("the kernel does not tell the size of a page")
}

fn search_stretch(
    memory: &File,
    stretch: &Stretch,
    regions: &[Region],
    needles: &Needles,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; (stretch.end - stretch.begin).min(STRETCH + needles.overlap())];
    let mut at = stretch.begin;
    while at < stretch.end {
        let name = |address: usize| {
            let region = regions.iter().find(|region| (region.begin..region.end).contains(&address));
            region.map_or("?", |region| region.name.as_str()).to_owned()
        };
        let wanted = (stretch.end - at).min(buffer.len());
        let length = match read_some(memory, &mut buffer[..wanted], at) {
            Ok(length) => length,
            Err(error) => {
                let region = regions.iter().find(|region| (region.begin..region.end).contains(&at));
                let region = region.context("every stretch lies in a region")?;
                if !WITHHELD.iter().any(|withheld| region.name.starts_with(withheld)) {
                    bail!("{} at {at:#x} cannot be read: {error}", region.name);
                }
                let end = region.end.min(stretch.end);
                if region.name.starts_with("/secretmem") {
                    tally.withheld += end - at;
                }
                at = end;
                continue;
            }
        };
        let own = if length < wanted || at + length == stretch.end { length } else { STRETCH.min(length) };
        note(&buffer[..length], own, at, needles, tally, name);
        tally.bytes += own;
        at += own;
    }
    Ok(())
}

/// Reads up to the first page that cannot be read.
fn read_some(memory: &File, buffer: &mut [u8], at: usize) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match memory.read_at(&mut buffer[filled..], (at + filled) as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    if filled == 0 { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(filled) }
}

fn note(bytes: &[u8], own: usize, at: usize, needles: &Needles, tally: &mut Tally, region: impl Fn(usize) -> String) {
    needles.search(bytes, own, |piece| {
        tally.add(Residue::around(bytes, &piece, at + piece.position, region(at + piece.position)));
    });
}
