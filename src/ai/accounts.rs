//! Whose names stay here: those of people, as this host and its records know them.

use std::collections::BTreeSet;
use std::env;

use crate::enrich::users;
use crate::query::{Filter, Page, QueryError, Source};

/// Ids below belong to services (login.defs(5)); `postgres` is the name of a program, too.
const FIRST_PERSON: u32 = 1_000;
/// The user that stands for nobody.
const NOBODY: u32 = 65_534;
/// Records that are looked at for names.
const LOOKED_AT: usize = 1_000;

/// Names that are known before a word is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    pub(super) people: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Accounts {
    /// Those of this host, and whoever runs this program.
    pub(super) fn of_host() -> Self {
        let mut accounts = Accounts::default();
        for (uid, name) in users::all() {
            let is_person = uid >= FIRST_PERSON && uid != NOBODY;
            let names = if is_person { &mut accounts.people } else { &mut accounts.services };
            names.insert(name.to_string());
        }
        for name in ["USER", "LOGNAME", "SUDO_USER"] {
            if let Ok(name) = env::var(name) {
                accounts.add(&name);
            }
        }
        accounts
    }

    /// And those of the records that the answer may be about, which may be another host's.
    pub(super) async fn with_records(
        mut self,
        filter: &Filter,
        source: &dyn Source,
    ) -> Result<Self, QueryError> {
        let page = Page { limit: Some(LOOKED_AT), ..Page::default() };
        let list = source.list(filter, &page).await?;
        let users = list.connections.iter().filter_map(|c| c.process.as_ref()?.user.as_deref());
        users.for_each(|name| self.add(name));
        Ok(self)
    }

    /// Adds the name of a user who is no service of this host.
    pub(super) fn add(&mut self, name: &str) {
        if !name.is_empty() && name != "root" && !self.services.contains(name) {
            self.people.insert(name.to_owned());
        }
    }
}
