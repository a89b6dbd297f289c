//! Senders as they are: every preset with requests that others signed.

mod published;
mod unverified;
