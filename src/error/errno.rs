//! The names of errnos.

use core::fmt;

use rustix::io::Errno;

use crate::numbers::Decimal;
use crate::text::line;

/// Prints an errno by its name, such as `ENOENT`. For an errno that is not in its list, it prints
/// `errno` and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoName(pub Errno);

impl fmt::Display for ErrnoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(
                f,
                "errno {}",
                Decimal(self.0.raw_os_error().unsigned_abs().into())
            ),
        }
    }
}

fn errno_name(errno: Errno) -> Option<&'static str> {
    let at = NAMED_ERRNOS.iter().position(|named| *named == errno)?;
    Some(line(ERRNO_NAMES, at))
}

/// Lists errnos and their names. The names are one text, because a table would be larger than the
/// names themselves.
macro_rules! errno_names {
    ($($errno:ident $name:literal,)*) => {
        const NAMED_ERRNOS: &[Errno] = &[$(Errno::$errno,)*];
        const ERRNO_NAMES: &str = concat!($($name, "\n",)*);
    };
}

errno_names! {
    TOOBIG "E2BIG",
    ACCESS "EACCES",
    ADDRNOTAVAIL "EADDRNOTAVAIL",
    AGAIN "EAGAIN",
    BADF "EBADF",
    BUSY "EBUSY",
    EXIST "EEXIST",
    FAULT "EFAULT",
    FBIG "EFBIG",
    ILSEQ "EILSEQ",
    INTR "EINTR",
    INVAL "EINVAL",
    IO "EIO",
    ISDIR "EISDIR",
    LOOP "ELOOP",
    MFILE "EMFILE",
    NAMETOOLONG "ENAMETOOLONG",
    NFILE "ENFILE",
    NODATA "ENODATA",
    NODEV "ENODEV",
    NOENT "ENOENT",
    NOEXEC "ENOEXEC",
    NOMEM "ENOMEM",
    NOSPC "ENOSPC",
    NOSYS "ENOSYS",
    NOTDIR "ENOTDIR",
    NOTTY "ENOTTY",
    NXIO "ENXIO",
    OPNOTSUPP "EOPNOTSUPP",
    OVERFLOW "EOVERFLOW",
    PERM "EPERM",
    PIPE "EPIPE",
    PROTO "EPROTO",
    RANGE "ERANGE",
    ROFS "EROFS",
    SRCH "ESRCH",
    TXTBSY "ETXTBSY",
    XDEV "EXDEV",
}
