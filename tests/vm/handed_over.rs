//! A file descriptor that comes from elsewhere becomes a program if it is one.

use kprobe_attach::bpf::{Array, Program};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::fd::{AsFd, AsRawFd, OwnedFd};
use kprobe_attach::{Errno, Kernel, KprobeOpts};

use crate::machine::{clean, counting, function, load_as, unlink, version};

const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PROG_TYPE_KPROBE: u32 = 2;

fn copy(fd: &impl AsFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(fd, 0).unwrap()
}

#[test]
fn a_program_takes_over_its_descriptor() {
    clean(|| {
        let counters = Array::create(1).unwrap();
        let owned = copy(&counting(&counters, 0));
        let number = owned.as_raw_fd();
        let program = Program::try_from(owned).unwrap();
        assert_eq!(program.as_fd().as_raw_fd(), number);
        let link = Kernel::new().attach_kprobe(&program, function(), &KprobeOpts::new());
        unlink(2);
        drop(link.unwrap());
        assert_eq!(counters.get(0).unwrap(), 2);
        load_as(BPF_PROG_TYPE_KPROBE, 0, 0)
            .map(Program::try_from)
            .unwrap()
            .unwrap();
    });
}

#[test]
fn what_is_no_kprobe_program_is_closed() {
    clean(|| {
        let mut others = vec![
            load_as(BPF_PROG_TYPE_SOCKET_FILTER, 0, 0).unwrap(),
            rustix::fs::memfd_create("none", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
        ];
        if version() >= (5, 10) {
            // The number of its type is that of a kprobe program.
            others.push(copy(&Array::create(1).unwrap()));
        }
        for other in others {
            let refused = Program::from_fd(&other).unwrap_err();
            assert_eq!(refused.errno(), Errno::INVAL);
            let refused = Program::try_from(other).unwrap_err();
            let found = (refused.step(), refused.errno(), refused.cause());
            assert_eq!(
                found,
                (Step::OpenProgram, Errno::INVAL, Cause::WrongProgram)
            );
        }
    });
}
