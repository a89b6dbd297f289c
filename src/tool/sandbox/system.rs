//! What of this machine every sandbox has: the system's programs, a small `/etc`, an environment.
//!
//! Invariant: of `/etc` there is what is named here and nothing else; the users of this machine, its
//! services and its secrets are not. Left out: what differs from one sandbox to the next.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{HOME, Spec, WORKSPACE};

/// Where programs are looked for, inside and by the server itself.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories of programs: links on most systems, directories on others.
const PROGRAMS: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What programs read of this machine's own `/etc`, where it is there.
const ETC: [&str; 14] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// What is made up.
const MADE: [(&str, &str); 6] = [
    ("passwd", "agent:x:1000:1000:agent:/tmp/home:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"),
    ("group", "agent:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("resolv.conf", "# names are resolved by the proxy, if there is one\n"),
    // The workspace belongs to whom it belongs; and its own config cannot be written.
    (
        "gitconfig",
        "[safe]\n\tdirectory = *\n[user]\n\tname = agent\n\temail = agent@localhost\n\
         [init]\n\tdefaultBranch = main\n",
    ),
];

/// An empty directory, to lie over what must not be made.
pub(super) const EMPTY: &str = "empty";

/// What was found on this machine.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) bwrap: PathBuf,
    /// This binary.
    pub(super) program: PathBuf,
    /// Where the made-up files are.
    pub(super) place: PathBuf,
    pub(super) is_root: bool,
    /// Arguments for `bwrap` that show the system.
    pub(super) view: Vec<String>,
}

impl System {
    /// For programs that run as the server.
    pub(super) fn bare(program: PathBuf) -> System {
        let is_root = rustix::process::geteuid().is_root();
        let (bwrap, place) = (PathBuf::new(), PathBuf::new());
        System { bwrap, program, place, is_root, view: Vec::new() }
    }

    /// Looks, and makes the files. What is missing, if anything is, is said as what to do about it.
    pub(super) fn look(place: &Path, program: PathBuf) -> (System, Option<String>) {
        let mut system = System { place: place.to_owned(), ..System::bare(program) };
        let found = PATH.split(':').map(|it| Path::new(it).join("bwrap")).find(|it| it.is_file());
        let Some(bwrap) = found else {
            let why = "`bwrap` is not installed; its package is called bubblewrap".to_owned();
            return (system, Some(why));
        };
        system.bwrap = bwrap;
        if let Err(error) = make_files(place) {
            let why = format!("{} cannot be written: {error}", place.display());
            return (system, Some(why));
        }
        system.view = view();
        (system, None)
    }
}

fn view() -> Vec<String> {
    let mut view = Vec::new();
    let mut add = |arguments: &[&str]| view.extend(arguments.iter().map(ToString::to_string));
    add(&["--ro-bind", "/usr", "/usr"]);
    for path in PROGRAMS {
        match fs::read_link(path) {
            Ok(target) => add(&["--symlink", &target.to_string_lossy(), path]),
            Err(_) if Path::new(path).is_dir() => add(&["--ro-bind", path, path]),
            Err(_) => {}
        }
    }
    for path in ETC.into_iter().filter(|path| Path::new(path).exists()) {
        add(&["--ro-bind", path, path]);
    }
    view
}

/// The names of the files of `/etc` that are made up.
pub(super) fn made() -> impl Iterator<Item = &'static str> {
    MADE.into_iter().map(|(name, _)| name)
}

fn make_files(place: &Path) -> io::Result<()> {
    // Whoever programs run as may read them; they are nobody's secret.
    make_directory(place, None)?;
    make_directory(&place.join(EMPTY), None)?;
    // Of proxies of an earlier life, which was killed.
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, text) in MADE {
        let path = place.join(name);
        // Beside and moved: another server of this machine may be showing it.
        let unfinished = place.join(format!("{name}.part"));
        fs::write(&unfinished, text)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644))?;
        fs::rename(&unfinished, &path)?;
    }
    Ok(())
}

/// A directory that all may read, of this owner.
pub(super) fn make_directory(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    match owner {
        Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// What a program gets, whatever the server has.
pub(super) fn environment(spec: &Spec, is_off: bool) -> Vec<(String, String)> {
    let workspace = spec.workspace.to_string_lossy();
    let (home, workspace) = if is_off { (&*workspace, &*workspace) } else { (HOME, WORKSPACE) };
    let mut environment: Vec<(String, String)> = [
        ("PATH", PATH),
        ("HOME", home),
        ("PWD", workspace),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("TMPDIR", "/tmp"),
        // Some look elsewhere.
        ("GIT_CONFIG_SYSTEM", "/etc/gitconfig"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if spec.network.is_some() {
        let url = format!("http://127.0.0.1:{}", super::inside::PROXY_PORT);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            environment.push((name.to_owned(), url.clone()));
        }
        for name in ["no_proxy", "NO_PROXY"] {
            environment.push((name.to_owned(), "localhost,127.0.0.1,::1".to_owned()));
        }
    }
    environment.extend(spec.environment.iter().cloned());
    environment
}

/// What `bwrap` said, and what to do about it.
pub(super) fn explain(said: &str) -> String {
    let said = said.lines().last().unwrap_or_default();
    let namespaces = ["namespace", "uid map", "Operation not permitted", "No space left"];
    if !namespaces.iter().any(|it| said.contains(it)) {
        return said.to_owned();
    }
    format!(
        "{said}\nhint: users must be allowed to make namespaces: `sysctl \
         kernel.unprivileged_userns_clone=1` on Debian, an AppArmor profile for bwrap or `sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu, `user.max_user_namespaces` above \
         0 anywhere; a container needs a seccomp profile that lets them through"
    )
}
