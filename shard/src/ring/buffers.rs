//! Provided buffers: a ring of equal pieces of one mapping, from which the kernel picks when data
//! arrives. An idle connection so holds no buffer at all.

use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// A group of provided buffers, registered with the ring under its group id.
pub(crate) struct BufferGroup {
    entries: Mapping,
    memory: Mapping,
    /// Bytes of each buffer.
    size: usize,
    /// Number of buffers less one; the number is a power of two.
    mask: u16,
    /// Where the next buffer given back goes; what the kernel sees lags until `publish`.
    tail: u16,
    dirty: bool,
    /// Buffers that the kernel may pick.
    free: u16,
}

impl BufferGroup {
    /// Maps `count` (a power of two) buffers of `size` bytes and registers them as group `id`.
    pub(crate) fn register(
        io: &IoUring,
        id: u16,
        count: u16,
        size: u32,
    ) -> io::Result<BufferGroup> {
        let size = size as usize;
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        // SAFETY: `entries` is page-aligned, large enough for `count` entries, and outlives the
        // registration: the ring is closed before the groups are unmapped (see `Driver`'s field order).
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                entries.base.as_ptr() as u64,
                count,
                id,
                0,
            )?;
        }
        let mut group = BufferGroup {
            entries,
            memory,
            size,
            mask: count - 1,
            tail: 0,
            dirty: false,
            free: 0,
        };
        (0..count).for_each(|buffer| group.give_back(buffer));
        group.publish();
        Ok(group)
    }

    /// Bytes of each buffer.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Buffers that the kernel may pick.
    pub(crate) fn free(&self) -> u16 {
        self.free
    }

    /// Whether so few are left that buffers should be emptied to the heap: below a quarter.
    pub(crate) fn scarce(&self) -> bool {
        self.free <= self.mask / 4
    }

    /// The kernel has picked `buffer`: it is ours until `give_back`. Returns where it begins.
    pub(crate) fn take(&mut self, buffer: u16) -> NonNull<u8> {
        debug_assert!(self.free > 0 && buffer <= self.mask);
        self.free = self.free.saturating_sub(1);
        // SAFETY: `buffer` is masked to the group, so the offset lies inside the mapping.
        unsafe {
            self.memory
                .base
                .add(usize::from(buffer & self.mask) * self.size)
        }
    }

    /// Gives `buffer` back to the kernel, from the next `publish` on. Nobody may look at it any more.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        let base = self.entries.base.cast::<BufRingEntry>();
        // SAFETY: both offsets are masked into their mappings. The kernel reads an entry only once
        // `publish` has moved the tail over it, so nothing else looks at this one now.
        unsafe {
            let entry = base.add(usize::from(self.tail & self.mask)).as_mut();
            let start = self
                .memory
                .base
                .add(usize::from(buffer & self.mask) * self.size);
            entry.set_addr(start.as_ptr() as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        self.dirty = true;
    }

    /// Shows the kernel what was given back.
    pub(crate) fn publish(&mut self) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        // SAFETY: the tail lies inside the entries' mapping, is aligned, and is only ever written here;
        // the kernel reads it with acquire semantics.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.base.cast::<BufRingEntry>().as_ptr());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}

/// An anonymous private mapping.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and whoever holds a piece of it holds the driver too.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
