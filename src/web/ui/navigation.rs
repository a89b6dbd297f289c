//! What the pages are called and where they are: the one list that the navigation shows and the
//! palette searches. A new page is one line here.

/// An entry of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What a page says about itself with [`super::view::Shell::new`].
    pub(super) at: &'static str,
    pub(super) path: &'static str,
    pub(super) word: &'static str,
}

const fn place(at: &'static str, path: &'static str, word: &'static str) -> Place {
    Place { at, path, word }
}

/// What is looked at every day, what is set up, and what is looked after: a heading and its pages.
pub(super) static GROUPS: [(&str, &[Place]); 3] = [
    (
        "Every day",
        &[
            place("overview", "/", "Overview"),
            place("needs", "/needs", "Needs you"),
            place("agents", "/agents", "Agents"),
            place("sources", "/sources", "Sources"),
            place("deliveries", "/deliveries", "Deliveries"),
            place("sessions", "/sessions", "Sessions"),
        ],
    ),
    (
        "Set up",
        &[
            place("deployments", "/deployments", "Deployments"),
            place("environments", "/environments", "Environments"),
            place("vaults", "/vaults", "Vaults"),
            place("files", "/files", "Files"),
        ],
    ),
    (
        "Look after",
        &[
            place("usage", "/usage", "Usage"),
            place("audit", "/audit", "Audit"),
            place("keys", "/keys", "Keys"),
            place("settings", "/settings", "Settings"),
            place("reference", "/reference", "API"),
        ],
    ),
];
