//! One JSON object a line, of bounded length.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use super::protocol::LINE_MAX;

/// The next line without its end; `None` if the other side has closed instead.
///
/// # Errors
/// `InvalidData` for a line that is too long, `UnexpectedEof` for half a line.
///
/// # Cancel safety
/// None: what was read of a line is lost.
pub(crate) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(LINE_MAX + 1).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        None => Ok(None),
        Some(_) if line.len() as u64 >= LINE_MAX => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line has over {LINE_MAX} bytes")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle of a line")),
    }
}

/// A value as a line.
///
/// # Errors
/// What JSON cannot say: a path that is not UTF-8.
pub(crate) fn line_of(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_and_are_bounded() {
        let mut two = &b"a\n\nb"[..];
        assert_eq!(read_line(&mut two).await.unwrap().unwrap(), b"a");
        assert_eq!(read_line(&mut two).await.unwrap().unwrap(), b"");
        assert_eq!(read_line(&mut two).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read_line(&mut two).await.unwrap().is_none());
        let mut longest = vec![b'x'; LINE_MAX as usize];
        longest.push(b'\n');
        assert!(read_line(&mut &*longest).await.unwrap().is_some());
        longest.insert(0, b'x');
        assert_eq!(read_line(&mut &*longest).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
