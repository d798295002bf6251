//! The connection to the store: what requests ask through it, and how it comes back.
//!
//! One connection carries all requests. Who finds none goes on at once; who gets no answer within
//! [`ANSWER_TIMEOUT`] closes it, and it is opened again in the background, no sooner than a second later.
//! So a store that hangs slows the requests of that moment and no others.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo as _, RedisResult};
use redis::{RedisError, Script, ScriptInvocation};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{STORE_ERRORS_TOTAL, STORE_UP, Word};
use crate::config::StoreUrl;
use crate::telemetry::one_line;

/// The longest that a request waits for the store.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(50);
const TOO_LATE: &str = "no answer within 50 ms";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries to reach it, and between two looks at most.
const RETRY: Duration = Duration::from_secs(1);
/// On top of that while nobody complains.
const REST: Duration = Duration::from_secs(4);
const WARNING_INTERVAL: Duration = Duration::from_mins(1);
/// How long a place is taken that nobody renews: its server is gone.
const LEASE: Duration = Duration::from_mins(1);
const RENEWAL: Duration = Duration::from_secs(20);
/// Places renewed by one call of the script, so that it never takes the store long.
const RENEWED_AT_ONCE: usize = 500;
/// What is taken from to see whether the store works. No key's meter is called so.
const PROBE: &str = "millrace:rl:probe";

/// Several servers' limits, in a Redis.
pub struct LimitStore {
    client: Client,
    /// The URL without what is secret.
    shown: String,
    take: Script,
    hold: Script,
    /// Absent while the store counts as down.
    connection: ArcSwapOption<MultiplexedConnection>,
    /// Somebody had reason to complain.
    complaint: Arc<Notify>,
    /// For what nobody waits for.
    runtime: Handle,
    warned: Mutex<Option<Instant>>,
    /// The places that this server's requests hold: names of their sets, by their own.
    places: Mutex<HashMap<String, Arc<str>>>,
    /// This server among those that share the store.
    server: u64,
    places_made: AtomicU64,
}

impl fmt::Debug for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitStore").field("url", &self.shown).finish_non_exhaustive()
    }
}

impl LimitStore {
    /// Whether this can be the address of a store.
    pub fn check(url: &StoreUrl) -> Result<(), &'static str> {
        client(url).map(drop).map_err(
            |_| "not a URL such as redis://127.0.0.1:6379/0 or rediss://redis.example.com/0",
        )
    }

    /// Whether it can be reached and does what it is for; why not, without what is secret.
    pub async fn reach(url: &StoreUrl) -> Result<(), String> {
        let client = client(url).map_err(|_| "not a URL of a store")?;
        let connection = connect(&client).await.map_err(|error| without_arguments(&error))?;
        let take = take();
        match probe(&take, &connection).await {
            Ok(()) => Ok(()),
            // It had to be sent the script first, which takes three times as long.
            Err(_) => probe(&take, &connection).await,
        }
    }

    /// Begins to connect, inside a runtime. Whether the store is there is nobody's condition for anything.
    pub fn open(url: &StoreUrl) -> Result<Arc<Self>, &'static str> {
        Self::check(url)?;
        let store = Arc::new(Self {
            client: client(url).map_err(|_| "not a URL of a store")?,
            shown: url.to_string(),
            take: take(),
            hold: Script::new(include_str!("hold.lua")),
            connection: ArcSwapOption::default(),
            complaint: Arc::default(),
            runtime: Handle::try_current().map_err(|_| "no runtime for the store's connection")?,
            warned: Mutex::default(),
            places: Mutex::default(),
            server: getrandom::u64().map_err(|_| "no random numbers from the operating system")?,
            places_made: AtomicU64::new(0),
        });
        metrics::describe_gauge!(STORE_UP, "Whether limits are shared over replicas.");
        metrics::describe_counter!(STORE_ERRORS_TOTAL, "Failures of the store of shared limits.");
        metrics::gauge!(STORE_UP).set(0);
        metrics::counter!(STORE_ERRORS_TOTAL).increment(0);
        store.runtime.spawn(look_after(Arc::downgrade(&store), Arc::clone(&store.complaint)));
        Ok(store)
    }

    /// Takes `n` of a meter, if all of them are left. `None`: the store does not say.
    pub(in crate::keys) async fn take(&self, name: &str, limit: u32, n: u64) -> Option<Word> {
        let mut call = self.take.key(name);
        self.count(call.arg(limit).arg(n), limit).await
    }

    /// Gives `n` back. Nobody waits for it.
    pub(in crate::keys) fn give_back(self: &Arc<Self>, name: &Arc<str>, limit: u32, n: u64) {
        let (store, name) = (Arc::clone(self), Arc::clone(name));
        self.in_background(async move {
            let mut call = store.take.key(&*name);
            store.count(call.arg(limit).arg(format!("-{n}")), limit).await;
        });
    }

    async fn count(&self, call: &ScriptInvocation<'_>, limit: u32) -> Option<Word> {
        let (taken, used): (bool, f64) = self.ask(call).await?;
        if !used.is_finite() {
            self.complain(&"an answer that is no number");
            return None;
        }
        Some(Word { taken, used: used.clamp(0.0, limit.into()) })
    }

    /// A name that no other place has, on any server.
    pub(super) fn new_member(&self) -> String {
        format!("{:016x}-{}", self.server, self.places_made.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a place of `most` in the set `name`. `None`: the store does not say.
    pub(super) async fn hold(&self, name: &str, most: usize, member: &str) -> Option<bool> {
        let mut call = self.hold.key(name);
        self.ask(call.arg(most).arg(LEASE.as_millis() as u64).arg(member)).await
    }

    /// The place is renewed from here on.
    pub(super) fn keep(&self, member: &str, name: &Arc<str>) {
        self.places().insert(member.to_owned(), Arc::clone(name));
    }

    /// It is free. Nobody waits for that.
    pub(super) fn free(self: &Arc<Self>, member: &str, name: &Arc<str>) {
        self.places().remove(member);
        let (store, name, member) = (Arc::clone(self), Arc::clone(name), member.to_owned());
        self.in_background(async move {
            store.remove(&name, &[member]).await;
        });
    }

    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn remove(&self, name: &str, members: &[String]) -> Option<()> {
        let mut command = redis::cmd("ZREM");
        command.arg(name).arg(members);
        self.within(async |c| command.query_async::<i64>(c).await).await.map(|_| ())
    }

    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.connection.load().is_some() {
            self.runtime.spawn(work);
        }
    }

    async fn ask<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        self.within(async |c| call.invoke_async(c).await).await
    }

    /// What the store answers in time, if it does.
    async fn within<T>(
        &self,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let connection = self.connection.load_full()?;
        match timeout(ANSWER_TIMEOUT, ask(&mut connection.as_ref().clone())).await {
            Ok(Ok(answer)) => return Some(answer),
            // The store works and will not do this. That takes nobody's time.
            Ok(Err(error)) if is_answer(&error) => self.complain(&error),
            Ok(Err(error)) => self.lose(&connection, &error),
            Err(_) => self.lose(&connection, &TOO_LATE),
        }
        None
    }

    /// This connection is no good.
    fn lose(&self, connection: &Arc<MultiplexedConnection>, why: &dyn fmt::Display) {
        // Those that wait for the same connection find that out one after another.
        let before = self.connection.compare_and_swap(connection, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, connection)) {
            metrics::gauge!(STORE_UP).set(0);
        }
        self.complain(why);
    }

    /// Counts it, says it once a minute, and has somebody look.
    fn complain(&self, why: &dyn fmt::Display) {
        metrics::counter!(STORE_ERRORS_TOTAL).increment(1);
        self.complaint.notify_one();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            let (store, why) = (&self.shown, one_line(&why.to_string()));
            tracing::warn!(%store, %why, "the store of shared limits fails: each server's own limits hold");
        }
    }

    /// Connects if need be, and sees whether the store does what it is for.
    async fn look(&self, renewed: &mut Option<Instant>) -> bool {
        let before = self.connection.load_full();
        let is_new = before.is_none();
        let connection = match before {
            Some(connection) => connection,
            None => match connect(&self.client).await {
                Ok(connection) => Arc::new(connection),
                Err(error) => {
                    self.complain(&without_arguments(&error));
                    return false;
                }
            },
        };
        if let Err(why) = probe(&self.take, &connection).await {
            self.lose(&connection, &why);
            return false;
        }
        if is_new {
            self.connection.store(Some(connection));
            metrics::gauge!(STORE_UP).set(1);
            tracing::info!(store = %self.shown, "limits are shared with all servers of this store");
            *renewed = None;
        }
        if renewed.is_none_or(|at| at.elapsed() >= RENEWAL) && self.renew().await.is_some() {
            *renewed = Some(Instant::now());
        }
        true
    }

    /// All places for another [`LEASE`]; also those that the store has not heard of, or has forgotten.
    async fn renew(&self) -> Option<()> {
        let mut sets: HashMap<Arc<str>, Vec<String>> = HashMap::new();
        for (member, name) in self.places().iter() {
            sets.entry(Arc::clone(name)).or_default().push(member.clone());
        }
        for (name, members) in sets {
            for members in members.chunks(RENEWED_AT_ONCE) {
                let mut call = self.hold.key(&*name);
                // They are taken already: there is room.
                call.arg(i64::from(u32::MAX)).arg(LEASE.as_millis() as u64).arg(members);
                self.ask::<bool>(&call).await?;
                let mut freed = members.to_vec();
                freed.retain(|member| !self.places().contains_key(member));
                // Freed meanwhile, maybe before this renewed them.
                if !freed.is_empty() {
                    self.remove(&name, &freed).await?;
                }
            }
        }
        Some(())
    }
}

/// Opens the connection, and again when it was lost, for as long as anybody has the store.
async fn look_after(store: Weak<LimitStore>, complaint: Arc<Notify>) {
    let mut renewed = None;
    while let Some(store) = store.upgrade() {
        let works = store.look(&mut renewed).await;
        drop(store);
        sleep(RETRY).await;
        if works {
            let _ = timeout(REST, complaint.notified()).await;
        }
    }
}

fn take() -> Script {
    Script::new(include_str!("take.lua"))
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        // Who asks has a timeout of his own.
        .set_response_timeout(None);
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    // Its own bound is for the socket; a handshake with one that hangs has none.
    timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| {
        Err(RedisError::from((redis::ErrorKind::Io, "it cannot be reached within 2 s")))
    })
}

/// Reads and writes, in the time that a request would wait.
async fn probe(take: &Script, connection: &MultiplexedConnection) -> Result<(), String> {
    let mut connection = connection.clone();
    let mut call = take.key(PROBE);
    let call = call.arg(u32::MAX).arg(1);
    let probe = call.invoke_async::<(bool, f64)>(&mut connection);
    match timeout(ANSWER_TIMEOUT, probe).await {
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err(TOO_LATE.to_owned()),
    }
}

fn client(url: &StoreUrl) -> RedisResult<Client> {
    let url = url.secret();
    let parts = url.split_once("://").map(|(scheme, rest)| (scheme, rest.contains('#')));
    // Others are of this crate's own making, and what follows a # turns checks of certificates off.
    if !matches!(parts, Some(("redis" | "rediss" | "valkey" | "valkeys", false)))
        || !url.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(RedisError::from((redis::ErrorKind::InvalidClientConfig, "not a URL")));
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = url.into_connection_info()?;
    // Redis counts its databases in 32 bits.
    if i32::try_from(info.redis_settings().db()).is_ok_and(|db| db >= 0) {
        return Client::open(info.set_tcp_settings(tcp));
    }
    Err(RedisError::from((redis::ErrorKind::InvalidClientConfig, "no number of a database")))
}

/// What went wrong when connecting. A server that does not know AUTH repeats what it was told, the
/// password, so its words stay out of the log.
fn without_arguments(error: &RedisError) -> String {
    if error.is_io_error() {
        return error.to_string();
    }
    let code = error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned);
    format!("it refuses the connection ({code})")
}

/// The store itself said it, so it is alive.
fn is_answer(error: &RedisError) -> bool {
    !error.is_unrecoverable_error() && !error.is_io_error() && !error.is_timeout()
}
