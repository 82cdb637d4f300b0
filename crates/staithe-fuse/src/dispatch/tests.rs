use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use super::*;

type Answer = Result<u32, Errno>;

struct Answers(Sender<Answer>);

impl Reply for Answers {
    fn fail(self, code: Errno) {
        self.0.send(Err(code)).unwrap();
    }
}

impl Answers {
    fn send(self, value: u32) {
        self.0.send(Ok(value)).unwrap();
    }
}

struct Fixture {
    runtime: tokio::runtime::Runtime,
    dispatcher: Arc<Dispatcher>,
}

impl Fixture {
    fn new(deadline: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let dispatcher = Arc::new(Dispatcher::new(
            runtime.handle().clone(),
            move || deadline,
            || Ok(()),
            staithe_fs::Answers::default(),
        ));
        Self { runtime, dispatcher }
    }

    fn later(&self, future: impl Future<Output = Result<u32>> + Send + 'static) -> Receiver<Answer> {
        let (reply, answers) = channel();
        let subject = Subject::inode("read", 2);
        self.dispatcher.later(subject, Answers(reply), Deadline::Usual, future, Answers::send);
        answers
    }
}

const LONG: Duration = Duration::from_mins(10);

fn answer(answers: &Receiver<Answer>) -> Answer {
    answers.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn a_ready_future_is_answered_on_the_calling_thread() {
    let fixture = Fixture::new(LONG);
    let caller = std::thread::current().id();
    let answers = fixture.later(async move { Ok(u32::from(std::thread::current().id() == caller)) });
    assert_eq!(answers.try_recv().unwrap(), Ok(1));
    assert!(fixture.dispatcher.waiting().is_empty());
}

#[test]
fn a_pending_future_goes_on_with_its_reply() {
    let fixture = Fixture::new(LONG);
    let (wake, woken) = oneshot::channel();
    let answers = fixture.later(async move { Ok(woken.await.unwrap()) });
    assert_eq!(fixture.dispatcher.waiting().iter().map(|(_, count)| count).sum::<u64>(), 1);
    wake.send(7).unwrap();
    assert_eq!(answer(&answers), Ok(7));
}

#[test]
fn the_inline_poll_may_use_timers() {
    let fixture = Fixture::new(LONG);
    let answers = fixture.later(async {
        tokio::time::timeout(LONG, tokio::task::yield_now()).await.unwrap();
        Ok(3)
    });
    assert_eq!(answer(&answers), Ok(3));
}

#[test]
fn a_request_that_never_ends_is_answered_at_its_deadline() {
    let fixture = Fixture::new(Duration::from_millis(20));
    let answers = fixture.later(std::future::pending());
    assert_eq!(answer(&answers), Err(Errno::ETIMEDOUT));
}

#[test]
fn work_of_steps_has_no_deadline_of_its_own() {
    let fixture = Fixture::new(Duration::ZERO);
    let (reply, answers) = channel();
    let (wake, woken) = oneshot::channel();
    let subject = Subject::name("rename", 1, "a");
    let future = async move { Ok(woken.await.unwrap()) };
    fixture.dispatcher.later(subject, Answers(reply), Deadline::OfSteps, future, Answers::send);
    // A request beside it runs into the deadline first.
    assert_eq!(answer(&fixture.later(std::future::pending())), Err(Errno::ETIMEDOUT));
    wake.send(9).unwrap();
    assert_eq!(answer(&answers), Ok(9));
}

#[test]
fn panics_fail_their_request_and_nothing_else() {
    let fixture = Fixture::new(LONG);
    let inline = fixture.later(async { panic!("at the first poll") });
    assert_eq!(answer(&inline), Err(PANICKED));
    let spawned = fixture.later(async {
        tokio::task::yield_now().await;
        panic!("on the runtime")
    });
    assert_eq!(answer(&spawned), Err(PANICKED));
    let (reply, answers) = channel();
    let subject = Subject::inode("write", 2);
    fixture.dispatcher.now(&subject, Answers(reply), || -> Result<u32> { panic!("at once") }, Answers::send);
    assert_eq!(answer(&answers), Err(PANICKED));
    fixture.dispatcher.quietly(&subject, || panic!("without a reply"));
    assert_eq!(answer(&fixture.later(async { Ok(1) })), Ok(1));
    fixture.runtime.block_on(async {});
}

#[test]
fn a_panic_while_sending_drops_the_reply() {
    let fixture = Fixture::new(LONG);
    let (reply, answers) = channel();
    let subject = Subject::inode("read", 2);
    fixture.dispatcher.now(&subject, Answers(reply), || Ok(()), |_reply, ()| panic!("while sending"));
    assert!(answers.recv().is_err(), "nothing was sent, and the reply is gone");
}

#[test]
fn what_memory_knows_is_answered_and_the_rest_given_back() {
    let fixture = Fixture::new(LONG);
    let (reply, answers) = channel();
    let subject = Subject::name("lookup", 1, "a");
    let back = fixture.dispatcher.if_known(&subject, Answers(reply), || None, Answers::send);
    let missing = || Some(Err(FsError::new(FsErrorKind::NotFound, "not there")));
    assert!(fixture.dispatcher.if_known(&subject, back.unwrap(), missing, Answers::send).is_none());
    assert_eq!(answer(&answers), Err(Errno::ENOENT));
}

#[test]
fn a_chain_of_causes_is_one_line() {
    let cause = std::io::Error::other("connection refused");
    let error = FsError::caused(FsErrorKind::TimedOut, "cannot read a.txt", cause);
    assert_eq!(chain(&error), "cannot read a.txt: connection refused");
}
