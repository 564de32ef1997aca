//! The groups that a user is in, by /etc/passwd and /etc/group: sockets of runtimes belong to one.
//!
//! Read directly, as names of users are: the C library's look-up may ask the network.

/// The ids of the groups that list this user.
pub(super) fn of(uid: u32) -> Vec<u32> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    listed(&read("/etc/passwd"), &read("/etc/group"), uid)
}

/// `name:password:uid:...` and `name:password:gid:user,user`.
fn listed(passwd: &str, group: &str, uid: u32) -> Vec<u32> {
    let uid = uid.to_string();
    let is_user = |line: &&str| line.split(':').nth(2) == Some(uid.as_str());
    let Some(user) = passwd.lines().find(is_user).and_then(|line| line.split(':').next()) else {
        return Vec::new();
    };
    let lists =
        |line: &&str| line.split(':').nth(3).is_some_and(|all| all.split(',').any(|u| u == user));
    let ids = group.lines().filter(lists).filter_map(|line| line.split(':').nth(2)?.parse().ok());
    // The kernel takes 65,536 (NGROUPS_MAX); nobody means that many.
    ids.take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_user_are_those_that_list_them() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnetspy:x:990:990::/:/bin/false\nbad\n";
        let group =
            "docker:x:998:ann,netspy\nnetspy:x:990:\nother:x:5:netspyx\nadm:x:y:netspy\nbad\n";
        assert_eq!(listed(passwd, group, 990), [998]);
        assert!(listed(passwd, group, 7).is_empty());
    }
}
