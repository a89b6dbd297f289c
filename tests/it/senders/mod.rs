//! Senders as they are: every preset with requests that others signed.

mod cases;
mod certified;
mod changed;
mod explained;
mod handshakes;
mod page;
mod published;
mod replays;
mod signed;
mod unverified;
