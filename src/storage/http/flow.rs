//! The body of an answer that gives all of an image, as it comes.

use crate::error::Result;
use crate::job::JobControl;
use crate::storage::remote::Terms;

use super::client::Answer;
use super::connection::Piece;
use super::head::Framing;

/// What is still to come.
#[derive(Debug)]
pub(super) struct Flow(Answer);

impl Flow {
    pub(super) fn new(answer: Answer) -> Self {
        Self(answer)
    }

    /// How long the server says that all is.
    pub(super) fn len(&self) -> Option<u64> {
        match self.0.head.framing {
            Framing::Length(len) => Some(len),
            _ => None,
        }
    }

    /// Fills `buf`; fewer bytes only at the end. A server that gives one now and then is ended too.
    ///
    /// # Errors
    /// Of the connection, or of what the server sends.
    pub(super) fn fill(
        &mut self,
        buf: &mut [u8],
        terms: &Terms,
        control: &JobControl,
    ) -> Result<usize> {
        let over = terms.body_end(buf.len() as u64);
        let mut filled = 0;
        while let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty()) {
            let wait = terms.wait(control).until(over);
            let read = self.0.connection.read(&mut self.0.body, room, wait);
            match read.map_err(|error| terms.silent(error, control))? {
                Piece::Bytes(n) => filled += n,
                Piece::End => break,
            }
        }
        Ok(filled)
    }
}
