//! A folder that stands for a machine in tests.

use std::path::PathBuf;

use crate::files::Root;

pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty folder, removed when this is dropped.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cpusieve-probe-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn root(&self) -> Root {
        Root::at(&self.0)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Writes a file and the folders above it.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes a program that anybody may run.
    pub(crate) fn program(&self, file: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(file, script.as_bytes());
        std::fs::set_permissions(self.path(file), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
