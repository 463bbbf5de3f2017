//! The program's own file in memory: what was used to start and to join is needed again once a day, or never.
#![expect(unsafe_code, reason = "the program headers, and advice about the pages that they name")]

use std::ops::Range;
use std::ptr;

/// The pages that hold what the file holds, and nothing else: those that were never writable.
pub(super) fn pages() -> Vec<Range<usize>> {
    // SAFETY: asks for a word of what the kernel handed to the process.
    let [at, count, page] =
        [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PAGESZ].map(|what| unsafe { libc::getauxval(what) });
    let [Ok(at), Ok(count), Ok(page)] = [at, count, page].map(usize::try_from) else { return Vec::new() };
    let headers = ptr::with_exposed_provenance::<libc::Elf64_Phdr>(at);
    if headers.is_null() || page == 0 {
        return Vec::new();
    }
    // SAFETY: the kernel mapped so many headers at this place, for as long as the process lives.
    let headers = unsafe { std::slice::from_raw_parts(headers, count) };
    let address = |header: &libc::Elf64_Phdr| usize::try_from(header.p_vaddr).ok();
    let table = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    let Some(base) = table.and_then(address).and_then(|table| at.checked_sub(table)) else {
        return Vec::new();
    };
    let range = |header: &libc::Elf64_Phdr| {
        let start = base.checked_add(address(header)?)?;
        let end = start.checked_add(usize::try_from(header.p_filesz).ok()?)?;
        // Whole pages only: what stands beside them in a page may be another segment's.
        let range = start.next_multiple_of(page)..end - end % page;
        (!range.is_empty()).then_some(range)
    };
    let is_file =
        |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    headers.iter().filter(is_file).filter_map(range).collect()
}

/// Lets go of all of it: what is used from now on is mapped again, from the page cache as a rule.
pub(super) fn release() {
    for Range { start, end } in pages() {
        // SAFETY: these pages are mapped from the file and never written: each access finds the same bytes again.
        let refused = unsafe {
            libc::madvise(ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED) != 0
        };
        if refused {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the program's pages stay in memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 16] = *b"held by the file";
    static LARGE: [u8; 4 << 20] = [1; 4 << 20];

    fn is_within(address: usize) -> bool {
        pages().iter().any(|range| range.contains(&address))
    }

    #[test]
    fn only_what_is_never_written_goes() {
        static WRITTEN: std::sync::Mutex<u64> = std::sync::Mutex::new(7);
        static NAMES: [&str; 2] = ["moved", "by the loader"];
        assert!(is_within(ptr::from_ref(&CONSTANT).addr()));
        assert!(!is_within((&raw const WRITTEN).addr()));
        assert!(
            !is_within((&raw const NAMES).addr()),
            "pages that hold addresses were written by the loader"
        );
        *WRITTEN.lock().unwrap() = 8;
        release();
        assert_eq!(
            (*WRITTEN.lock().unwrap(), &CONSTANT, NAMES[1]),
            (8, b"held by the file", "by the loader")
        );
    }

    #[test]
    fn less_is_resident_afterwards() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap().to_owned();
            line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap()
        };
        let used: usize = std::hint::black_box(&LARGE).iter().map(|byte| usize::from(*byte)).sum();
        assert_eq!(used, LARGE.len());
        let before = resident();
        release();
        let after = resident();
        // What runs beside this is mapped again.
        assert!(after + 2048 < before, "{before} kB, then {after} kB");
    }
}
