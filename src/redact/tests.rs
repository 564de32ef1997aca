use super::secrets;

mod ordinary;
mod seen;

use ordinary::MORE;
use seen::SEEN;

/// Command lines as they are seen, and what is left of them.
const SECRETS: &[(&str, &str)] = &[
    ("curl https://ann:hunter2@example.com/x", "curl https://ann:***@example.com/x"),
    (
        "git clone https://p4ss:w@rd@git.example.com/r",
        "git clone https://p4ss:***@git.example.com/r",
    ),
    (
        "git clone https://oauth2token0123456789abcdef@git.example.com/r",
        "git clone https://***@git.example.com/r",
    ),
    (
        "psql postgresql://app:s3cr3t@db:5432/app?sslmode=require",
        "psql postgresql://app:***@db:5432/app?sslmode=require",
    ),
    ("worker redis://:hunter2@10.0.0.5:6379/0", "worker redis://:***@10.0.0.5:6379/0"),
    ("sync a://u:p@h b://u:p@h", "sync a://u:***@h b://u:***@h"),
    (
        "curl https://x.example/y?token=abc123&user=ann",
        "curl https://x.example/y?token=***&user=ann",
    ),
    (
        "curl https://b.example/o?X-Amz-Signature=f00d&X-Amz-Date=1",
        "curl https://b.example/o?X-Amz-Signature=***&X-Amz-Date=1",
    ),
    (
        "curl https://a.blob.example/c?sv=2024&sig=abc%3D",
        "curl https://a.blob.example/c?sv=2024&sig=***",
    ),
    ("tool --password hunter2 --host x", "tool --password *** --host x"),
    ("tool --password=hunter2;x --host x", "tool --password=*** --host x"),
    ("tool -password hunter2", "tool -password ***"),
    ("tool --db-password 'hunter2' x", "tool --db-password '***' x"),
    ("tool --api-key=abc --client-secret def", "tool --api-key=*** --client-secret ***"),
    ("tool --apiKey abc --accessToken=def", "tool --apiKey *** --accessToken=***"),
    ("kubectl --token abc.def get pods", "kubectl --token *** get pods"),
    ("gpg --batch --passphrase hunter2 -d x", "gpg --batch --passphrase *** -d x"),
    (
        "java -Djavax.net.ssl.keyStorePassword=changeit -jar a.jar",
        "java -Djavax.net.ssl.keyStorePassword=*** -jar a.jar",
    ),
    ("java -DdbPassword=x -Xmx1g", "java -DdbPassword=*** -Xmx1g"),
    ("env PGPASSWORD=hunter2 psql -h db", "env PGPASSWORD=*** psql -h db"),
    (
        "env AWS_SECRET_ACCESS_KEY=/wJalr+x AWS_REGION=eu",
        "env AWS_SECRET_ACCESS_KEY=*** AWS_REGION=eu",
    ),
    (
        "docker run -e MYSQL_ROOT_PASSWORD=x -p 3306:3306 mysql",
        "docker run -e MYSQL_ROOT_PASSWORD=*** -p 3306:3306 mysql",
    ),
    ("docker run --env=API_TOKEN=x img", "docker run --env=API_TOKEN=*** img"),
    ("MYSQL_PWD=x mysqldump db", "MYSQL_PWD=*** mysqldump db"),
    (
        "sqlcmd Server=db;User=sa;Password=x;Encrypt=no",
        "sqlcmd Server=db;User=sa;Password=***;Encrypt=no",
    ),
    (
        "app {\"user\":\"ann\",\"password\":\"hun,ter2\",\"n\":1}",
        "app {\"user\":\"ann\",\"password\":\"***\",\"n\":1}",
    ),
    ("mysql -u root -phunter2 db", "mysql -u root -p*** db"),
    ("sudo /usr/bin/mysqldump -phunter2 db", "sudo /usr/bin/mysqldump -p*** db"),
    ("sshpass -p hunter2 ssh -p 22 host", "sshpass -p *** ssh -p 22 host"),
    ("sshpass -phunter2 ssh host", "sshpass -p*** ssh host"),
    ("curl -u ann:hunter2 https://x", "curl -u ann:*** https://x"),
    ("curl -uann:hunter2 https://x", "curl -uann:*** https://x"),
    ("curl --user=ann:hunter2 https://x", "curl --user=ann:*** https://x"),
    ("curl --proxy-user ann:hunter2 https://x", "curl --proxy-user ann:*** https://x"),
    ("curl -H Authorization: Bearer abcdef x", "curl -H Authorization: Bearer *** x"),
    (
        "sh -c curl -H 'Authorization: Basic YW5uOng=' x",
        "sh -c curl -H 'Authorization: Basic ***' x",
    ),
    ("curl -H \"X-Api-Key: abc\" x", "curl -H \"X-Api-Key: ***\" x"),
    ("curl -H X-Api-Key:abc x", "curl -H X-Api-Key:*** x"),
    ("curl -H Cookie: sid=abc; theme=dark x", "curl -H Cookie: sid=***; theme=*** x"),
    ("redis-cli -a hunter2 -h db ping", "redis-cli -a *** -h db ping"),
    ("redis-cli CONFIG SET requirepass hunter2", "redis-cli CONFIG SET requirepass ***"),
    (
        "aws configure set aws_secret_access_key wJalr",
        "aws configure set aws_secret_access_key ***",
    ),
    ("docker login -u ann -p hunter2 r.example", "docker login -u ann -p *** r.example"),
    ("ldapsearch -x -D cn=admin -w hunter2", "ldapsearch -x -D cn=admin -w ***"),
    ("smbclient //s/x -U ann%hunter2", "smbclient //s/x -U ann%***"),
    ("sqlcmd -S db -U sa -P hunter2", "sqlcmd -S db -U sa -P ***"),
    ("unzip -P hunter2 a.zip", "unzip -P *** a.zip"),
    ("7z x -phunter2 a.7z", "7z x -p*** a.7z"),
    ("openssl enc -d -k hunter2 -in x", "openssl enc -d -k *** -in x"),
    ("openssl rsa -passin pass:hunter2 -in x", "openssl rsa -passin pass:*** -in x"),
    ("snmpwalk -v3 -A authpw99 -X privpw99 host", "snmpwalk -v3 -A *** -X *** host"),
    (
        "mount -o username=ann,password=x,vers=3 //s/x /m",
        "mount -o username=ann,password=***,vers=3 //s/x /m",
    ),
    ("bot xoxb-1234567890-abcdef", "bot ***"),
    ("git clone https://tok9Zk3mQ8vLp2Xa@github.com/a/b", "git clone https://***@github.com/a/b"),
    ("curl -HAuthorization: token abc x", "curl -HAuthorization: token *** x"),
    ("curl -HAuthorization:token abc x", "curl -HAuthorization:token *** x"),
    ("curl -H 'Authorization:abcdef' x", "curl -H 'Authorization:***' x"),
    ("curl -HCookie: sid=abc x", "curl -HCookie: sid=*** x"),
    ("twine upload -u __token__ -p pw dist/a", "twine upload -u __token__ -p *** dist/a"),
    ("vault token lookup s.abc", "vault token lookup ***"),
    ("vault token revoke -self hvs.abc", "vault token revoke -self ***"),
    ("sqlcmd -S h -U sa -Phunter2 -Q x", "sqlcmd -S h -U sa -P*** -Q x"),
    ("bcp t in f -U sa -Phunter2", "bcp t in f -U sa -P***"),
    ("mc alias set m http://h AKEY hunter2", "mc alias set m http://h *** ***"),
    ("the token tok_ABCDEF123456 fails", "the token *** fails"),
    ("why is glpat-ABCDEF123456 refused?", "why is *** refused?"),
    ("the api key is zzTop9876543210, why?", "the api key is ***, why?"),
    ("with API key zzTop9876543210", "with API key ***"),
    ("why does it fail? my password is hunter11.", "why does it fail? my password is ***."),
    ("the Password was 'swordfish', and now?", "the Password was '***', and now?"),
    ("the password is swordfish", "the password is ***"),
    ("password = hunter2 fails", "password = *** fails"),
    ("use api_key \"hunter15\" there", "use api_key \"***\" there"),
    ("the token `abc123` is refused", "the token `***` is refused"),
    ("does mysql -u root -p hunter25 connect?", "does mysql -u root -p *** connect?"),
    ("post to https://hooks.example/T0/B0/hunter26", "post to https://hooks.example/***"),
    (
        "curl https://hooks.slack.com/services/T0/B0/x1y2 -d a=b",
        "curl https://hooks.slack.com/services/*** -d a=b",
    ),
    (
        "curl 'https://discord.com/api/webhooks/12/abc'",
        "curl 'https://discord.com/api/webhooks/***'",
    ),
    ("curl https://api.telegram.org/bot12:abc/sendMessage", "curl https://api.telegram.org/bot***"),
    ("push ghp_abcdefghijklmnopqrstuvwxyz0123456789", "push ***"),
    ("call sk-proj-abcdefghij0123456789ABCDEFG", "call ***"),
    ("s3 AKIAIOSFODNN7EXAMPLE get", "s3 *** get"),
    ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N y", "x *** y"),
    (
        "echo -----BEGIN RSA PRIVATE KEY----- MIIE x -----END RSA PRIVATE KEY----- done",
        "echo *** done",
    ),
];

/// Ordinary command lines.
const ORDINARY: &[&str] = &[
    "",
    "curl https://example.com/path?q=1&page=2",
    "ssh -p 2222 ann@example.com",
    "git clone ssh://git@github.com/a/b.git",
    "git clone https://ann@git.example.com/a/b.git",
    "git checkout 3f786850e387550fdab836ed7e6dc881de23001b",
    "mkdir -p /var/lib/x",
    "cp -a a b",
    "sort -k 2 -u x",
    "docker run -p 8080:80 -u 1000:1000 --user 1000:1000 nginx",
    "docker run --name my-secret x/my-secret:latest",
    "docker build --secret id=npmrc,src=.npmrc .",
    "mysql -u root -p db",
    "psql -h db -U app -p 5432",
    "vllm serve --max-tokens 512 --tokenizer mistral --max-model-len 4096",
    "app --password-file /run/secrets/db --token-file=/etc/t",
    "app --password-stdin --host x",
    "nginx -g daemon off;",
    "openssl s_client -connect example.com:443 -key /etc/x.pem",
    "app --private-key /etc/ssl/k.pem --ssl-key=/etc/k.pem --api-key=./key.pem",
    "ssh -i /home/ann/.ssh/id_ed25519 host",
    "ffmpeg -i a -pass 1 -f null x",
    "grep -r password /etc",
    "kubectl get secret db -o yaml",
    "passwd ann",
    "python3 tokenize.py --keyboard de --monkey=1 --keyspace ks --author ann",
    "sh -c echo $PASSWORD; app --password=$PASSWORD --token ${TOKEN}",
    "env PWD=/home/ann OLDPWD=/ HOME=/home/ann LANG=C",
    "java -Xmx1g -XX:+UseG1GC -cp a.jar:b.jar Main key=value",
    "/usr/lib/systemd/systemd-resolved",
    "postgres: app app 10.0.0.5(41234) idle",
    "sshd: ann@pts/0",
    "node /srv/app/server.js --port=3000 --auth-type basic",
    "rsync -e ssh -p -a x:y z",
    "pip install sk-learn-contrib-metrics-extras-for-people",
    "app 550e8400-e29b-41d4-a716-446655440000 sha256:e3b0c44298fc1c149afbf4c8996fb924",
    "the bearer of news",
    "app --no-password start now",
    "ansible-playbook --ask-become-pass site.yml",
    "app pass:through",
    "git clone https://jonathan-smith24@git.example.com/a",
    "openssl rsa -passin file:/run/p -in x",
    "vault lease revoke database/creds/app/2f6a614c",
    "mc alias list",
    "the token bucket is full",
    "the key is found, the api key is wrong",
    "the api_key rotated",
    "my password is wrong, why?",
    "the token is not accepted, and the api_key was rejected",
    "is the password being sent in the clear?",
    "the password is in /etc/shadow; the secret is /run/secrets/db",
    "grep -n password \"notes.txt\"",
    "which process connects to port 443 -p 8080",
    "ssh -p 2222 build01",
    "mkdir -p release2024",
    "https://api.telegram.org/docs and https://hooks.example/help and https://discord.com/api/v9",
    "why does curl https://example.com/webhooks/12 fail?",
    "the pass is set",
    "curl http://[::1]:8080/a@b",
    "Process 'curl' made 5 outbound connection attempts over the last 60 seconds",
];

#[test]
fn secrets_of_every_known_shape_are_hidden_and_the_rest_stays() {
    for (line, expected) in SECRETS.iter().chain(SEEN) {
        assert_eq!(secrets(line), *expected, "{line}");
    }
}

#[test]
fn ordinary_lines_stay_as_they_are() {
    for line in ORDINARY.iter().chain(MORE) {
        assert_eq!(secrets(line), *line);
    }
}

#[test]
fn what_was_redacted_stays_as_it_is() {
    for (_, line) in SECRETS.iter().chain(SEEN) {
        assert_eq!(secrets(line), *line);
    }
}

#[test]
fn anything_can_be_redacted() {
    let pieces = [
        "=",
        ":",
        "\"",
        "'",
        "-p",
        "password",
        "://",
        "@",
        "é",
        " ",
        "\u{202e}",
        "token=",
        "mysql",
        "-----BEGIN",
        "PRIVATE KEY",
        "eyJ",
        "set",
        "cookie:",
    ];
    let mut state = 7_u64;
    for _ in 0..20_000 {
        let mut line = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            line.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        let _ = secrets(&line);
    }
}
