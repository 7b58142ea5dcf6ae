//! A value that is made when it is first needed, and is then shared.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

/// Holds a value that is made at most once, by the thread that first needs it.
///
/// Threads that need it at the same time may each make one. The first to finish is kept, and the
/// others are dropped. No thread waits while a value is made.
pub(crate) struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// There is no value.
const EMPTY: u8 = 0;
/// A thread is moving its value in.
const MOVING: u8 = 1;
/// There is a value, which does not change any more.
const READY: u8 = 2;

// SAFETY: a shared `Once` moves a T in from one thread, and gives references to it to all.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Holds a value that is already known.
    pub(crate) const fn with(value: T) -> Self {
        Self {
            state: AtomicU8::new(READY),
            value: UnsafeCell::new(MaybeUninit::new(value)),
        }
    }

    /// Returns the value, if it has been made.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: once the state is READY, nothing writes to the value any more.
        let value = unsafe { &*self.value.get() };
        // SAFETY: READY is stored after the value is written, and is loaded with Acquire.
        Some(unsafe { value.assume_init_ref() })
    }

    /// Returns the value. If there is none, makes it first.
    #[inline]
    pub(crate) fn get_or(&self, make: impl FnOnce() -> T) -> &T {
        match self.get() {
            Some(value) => value,
            None => self.keep(make()),
        }
    }

    /// Keeps this value, or returns the one that another thread has kept in the meantime.
    fn keep(&self, value: T) -> &T {
        if claim(&self.state) {
            // SAFETY: only the thread that takes the state from EMPTY to MOVING comes here, and no
            // thread reads before READY.
            unsafe { (*self.value.get()).write(value) };
            self.state.store(READY, Ordering::Release);
        }
        loop {
            // Otherwise another thread is still moving a few words.
            if let Some(value) = self.get() {
                return value;
            }
            core::hint::spin_loop();
        }
    }
}

/// Takes the state from EMPTY to MOVING, unless another thread has.
fn claim(state: &AtomicU8) -> bool {
    let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
    state
        .compare_exchange(EMPTY, MOVING, acquire, relaxed)
        .is_ok()
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == READY {
            // SAFETY: there is a value, and no reference to it outlives this.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::vec::Vec;

    #[test]
    fn a_value_is_made_once_and_dropped_once() {
        let value = Arc::new(7);
        let once = Once::new();
        assert!(once.get().is_none());
        assert_eq!(**once.get_or(|| value.clone()), 7);
        assert_eq!(**once.get_or(|| unreachable!("it is there")), 7);
        assert_eq!(Arc::strong_count(&value), 2);
        drop(once);
        assert_eq!(Arc::strong_count(&value), 1);
        drop(Once::with(value.clone()));
        drop(Once::<Arc<i32>>::new());
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn all_threads_see_the_same_value() {
        for _ in 0..200 {
            let (once, count) = (Once::new(), AtomicUsize::new(0));
            let make = || Arc::new(count.fetch_add(1, Ordering::Relaxed));
            let seen: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| once.get_or(make).clone()))
                    .collect();
                let threads = threads.into_iter();
                threads.map(|thread| thread.join().unwrap()).collect()
            });
            assert!(seen.iter().all(|value| Arc::ptr_eq(value, &seen[0])));
            drop(once);
            // The values of the other threads have been dropped.
            assert!(seen.iter().all(|value| Arc::strong_count(value) == 4));
        }
    }
}
