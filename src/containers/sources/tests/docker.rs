//! Docker and podman, over a UNIX socket; and what holds for every source.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;

use super::*;

/// Answers each connection by what the script writes to it; the script gets the target that is asked
/// for. It goes on until the test's process ends.
fn docker(path: &Path, script: impl Fn(&str, &mut UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            script(&target, &mut stream);
        }
    });
}

fn inspected(id: &str, name: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/{name}","Config":{{"Image":"nginx:1","Labels":{{"a":"b"}}}}}}"#
    )
}

#[test]
fn a_container_is_named_by_the_runtime_and_asked_about_once() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    let targets: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&targets);
    docker(&socket, move |target, stream| {
        seen.lock().unwrap().push(target.to_owned());
        match target.contains(ID) {
            true => answer(stream, 200, &inspected(ID, "web")),
            false => answer(stream, 404, r#"{"message":"No such container"}"#),
        }
    });
    let names = asking(&[socket.to_str().unwrap()], None);
    let question = question(ID, "docker");
    assert!(matches!(names.look(&question), Look::Asked));
    let container = settled(&names, &question).unwrap();
    assert_eq!((&*container.id, &*container.runtime), (ID, "docker"));
    assert_eq!(container.name.as_deref(), Some("web"));
    assert_eq!(container.image.as_deref(), Some("nginx:1"));
    assert_eq!(container.labels["a"], "b");
    assert_eq!(names.answered(), [Arc::clone(&question)]);
    assert!(names.answered().is_empty());
    assert!(matches!(names.look(&question), Look::Known(again) if Arc::ptr_eq(&again, &container)));
    assert_eq!(*targets.lock().unwrap(), [format!("/containers/{ID}/json")]);

    let other = self::question(OTHER, "docker");
    assert!(settled(&names, &other).is_none());
    // For a while.
    assert!(matches!(names.look(&other), Look::Unknown));
    let status = names.status();
    assert_eq!((status.asked, status.named, status.unknown, status.failed), (2, 1, 1, 0));
    assert_eq!(status.sources[0].requests, 2);
    assert!(status.feature().ok);
}

#[test]
fn nobody_is_asked_about_what_no_runtime_here_has_or_what_is_no_id() {
    let names = asking(&["/nowhere/docker.sock"], None);
    for question in [
        question("web", "lxc"),
        question(ID, "containerd"),
        question("../../events", "docker"),
        question("", "docker"),
    ] {
        assert!(matches!(names.look(&question), Look::Unknown), "{question:?}");
    }
    assert_eq!(names.status().asked, 0);
}

#[test]
fn the_cgroups_of_a_user_are_not_looked_up_among_those_of_another() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    docker(&socket, |_, stream| answer(stream, 200, &inspected(ID, "of-root")));
    let names = asking(&[socket.to_str().unwrap()], None);
    let forged = Arc::new(Question { user: Some(4242), ..(*question(ID, "docker")).clone() });
    assert!(settled(&names, &forged).is_none());
    assert!(settled(&names, &question(ID, "docker")).is_some());
}

#[test]
fn a_broken_hostile_or_silent_socket_costs_an_answer_and_nothing_else() {
    let directory = Directory::new();
    let other = directory.at("podman.sock");
    docker(&other, |target, stream| match target.contains(OTHER) {
        true => answer(stream, 200, &inspected(OTHER, "db")),
        false => answer(stream, 404, "{}"),
    });
    type Script = fn(&str, &mut UnixStream);
    let scripts: [(&str, Script, &str); 7] = [
        ("error", |_, stream| answer(stream, 500, "x"), "it answered 500"),
        ("garbage", |_, stream| answer(stream, 200, "\x1b[31m{"), "the answer is none"),
        ("another", |_, stream| answer(stream, 200, &inspected("c0", "x")), "another container"),
        ("not-http", |_, stream| drop(stream.write_all(b"SSH-2.0-x\r\n")), "no valid HTTP"),
        ("closed", |_, _| {}, "no valid HTTP"),
        ("silent", |_, stream| drop(stream.read(&mut [0])), "no answer within"),
        (
            "endless",
            |_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n");
                while stream.write_all(&[b'['; 4096]).is_ok() {}
            },
            "larger than 1048576 bytes",
        ),
    ];
    for (name, script, expected) in scripts {
        let socket = directory.at(&format!("{name}.sock"));
        docker(&socket, script);
        let names = asking(&[socket.to_str().unwrap(), other.to_str().unwrap()], None);
        let one = question(ID, "docker");
        assert!(matches!(names.look(&one), Look::Asked));
        // The other socket goes on answering meanwhile.
        let two = question(OTHER, "docker");
        let container = settled(&names, &two).unwrap();
        assert_eq!(container.name.as_deref(), Some("db"));
        let end = Instant::now() + PATIENCE;
        while names.status().sources[0].problem.is_none() {
            assert!(Instant::now() < end, "{name}: {:?}", names.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        let problem = problem(&names);
        assert!(problem.contains(expected), "{name}: {problem}");
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
        assert!(!names.status().feature().ok);
    }
}

#[test]
fn a_runtime_that_comes_back_is_asked_again_and_less_often_while_it_does_not() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    let names = asking(&[socket.to_str().unwrap()], None);
    let question = question(ID, "docker");
    assert!(matches!(names.look(&question), Look::Asked));
    let end = Instant::now() + PATIENCE;
    while names.status().sources[0].failures == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(problem(&names).contains("cannot connect"), "{}", problem(&names));
    docker(&socket, |_, stream| answer(stream, 200, &inspected(ID, "web")));
    assert_eq!(settled(&names, &question).unwrap().name.as_deref(), Some("web"));
    let status = names.status();
    assert_eq!(status.sources[0].problem, None);
    assert!(status.sources[0].requests <= 4, "{status:?}");
}

#[test]
fn a_container_that_the_runtime_has_trouble_with_takes_no_names_from_others() {
    type Script = fn(&mut UnixStream);
    let scripts: [(&str, Script); 3] = [
        ("error", |stream| answer(stream, 500, "x")),
        ("garbage", |stream| answer(stream, 200, "{")),
        ("another", |stream| answer(stream, 200, &inspected("c0", "x"))),
    ];
    for (name, script) in scripts {
        let directory = Directory::new();
        let socket = directory.at("docker.sock");
        docker(&socket, move |target, stream| match target.contains(ID) {
            true => script(stream),
            false => {
                let id = target.split('/').nth(2).unwrap();
                answer(stream, 200, &inspected(id, "good"));
            }
        });
        let names = asking(&[socket.to_str().unwrap()], None);
        let bad = question(ID, "docker");
        assert!(matches!(names.look(&bad), Look::Asked));
        let end = Instant::now() + PATIENCE;
        while names.status().sources[0].failures == 0 {
            assert!(Instant::now() < end, "{name}: {:?}", names.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        for number in 0..20 {
            let good = question(&format!("{number:064x}"), "docker");
            let container = settled(&names, &good).unwrap();
            assert_eq!(container.name.as_deref(), Some("good"), "{name}");
        }
        assert!(settled(&names, &bad).is_none(), "{name}");
        let status = names.status();
        assert_eq!((status.named, status.failed, status.skipped), (20, 1, 0), "{name}");
        assert_eq!(status.sources[0].failures, 3, "{name}: it is asked again");
    }
}

#[test]
fn a_question_put_while_a_socket_is_left_alone_is_asked_when_that_ends() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    let names = asking(&[socket.to_str().unwrap()], None);
    let first = question(OTHER, "docker");
    // Until it is left alone for longer than a question is patient.
    assert!(settled(&names, &first).is_none());
    let late = question(ID, "docker");
    assert!(matches!(names.look(&late), Look::Asked));
    docker(&socket, |_, stream| answer(stream, 200, &inspected(ID, "late")));
    let container = settled(&names, &late).unwrap();
    assert_eq!(container.name.as_deref(), Some("late"));
    assert!(names.answered().contains(&late), "its records come again");
}

#[test]
fn the_queue_is_bounded_and_what_does_not_fit_is_counted() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    // Nobody accepts.
    let _listener = UnixListener::bind(&socket).unwrap();
    let names = asking(&[socket.to_str().unwrap()], None);
    for number in 0..2000 {
        let _ = names.look(&question(&format!("{number:064x}"), "docker"));
    }
    let status = names.status();
    assert_eq!(status.asked + status.skipped, 2000, "{status:?}");
    assert!(status.skipped > 1000, "{status:?}");
}
