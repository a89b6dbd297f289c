//! Directories of this machine that agents may work in.
//!
//! Invariant: a project is allowed under its real path only, and that is looked at each time: links and
//! roots change. Left out: what is done with one.

use std::path::{Path, PathBuf};

/// Why there is no working in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    Gone,
    Outside,
}

/// The real path of a project that lies in one of the roots that the operator allows.
pub fn allowed(project: &str, roots: &[PathBuf]) -> Result<PathBuf, Unfit> {
    let path = Path::new(project).canonicalize().ok().filter(|path| path.is_dir());
    let path = path.ok_or(Unfit::Gone)?;
    let mut roots = roots.iter().filter_map(|root| root.canonicalize().ok());
    if roots.any(|root| path.starts_with(root)) { Ok(path) } else { Err(Unfit::Outside) }
}

/// Where a project has its objects, if it is the top of a git repository that has them itself.
pub fn git_objects(project: &Path) -> Option<PathBuf> {
    let (project, objects) = (project.canonicalize().ok()?, project.join(".git/objects"));
    objects.canonicalize().ok().filter(|path| path.is_dir() && path.starts_with(project))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_lies_in_a_root_under_its_real_path() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (root, project, outside) = (at("root"), at("root/project"), at("outside"));
        for path in [&project.join(".git/objects"), &outside.join(".git/objects")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let borrowed = root.join("borrowed");
        std::fs::create_dir(&borrowed).unwrap();
        std::os::unix::fs::symlink(outside.join(".git"), borrowed.join(".git")).unwrap();
        let roots = [at("nowhere"), root.clone()];
        let check = |path: &Path| allowed(path.to_str().unwrap(), &roots);
        assert_eq!(check(&project), Ok(project.canonicalize().unwrap()));
        assert_eq!(check(&root.join("project/../project")), check(&project));
        assert_eq!(check(&root.join("link")), Err(Unfit::Outside));
        assert_eq!(check(&outside), Err(Unfit::Outside));
        assert_eq!(check(&root.join("missing")), Err(Unfit::Gone));
        assert!(git_objects(&project).is_some());
        assert_eq!(git_objects(&root), None);
        assert_eq!(git_objects(&borrowed), None, "its objects are another repository's");
    }
}
