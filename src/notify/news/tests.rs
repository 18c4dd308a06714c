use super::*;
use crate::config::tests::{BOTH, load};
use crate::connect::Environment;
use crate::fault::Side;
use crate::ledger::{CopyProgress, TableState};
use crate::observe::{Lag, test_copy};

/// What is told of looks at these seconds.
struct Scene {
    news: News,
    began: Instant,
}

impl Scene {
    fn new(notify: &str) -> Self {
        let config =
            load(&format!("{BOTH}name = \"salon\"\n[notify]\n{notify}"), &Environment::empty()).unwrap();
        let began = Instant::now();
        Self { news: News::new(&config, began), began }
    }

    fn look(&mut self, seconds: u64, status: Result<&Status, &Fault>) -> Vec<Message> {
        let at = self.began + Duration::from_secs(seconds);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_316_400 + seconds);
        self.news.look(Look { status, slot_lost_in: None, at, time })
    }

    fn events(&mut self, seconds: u64, status: Result<&Status, &Fault>) -> Vec<&'static str> {
        self.look(seconds, status).iter().map(|message| message.event).collect()
    }
}

fn behind(seconds: f64) -> Status {
    Status {
        verdict: Verdict::Behind,
        lag: Some(Lag { bytes: 1, seconds: Some(seconds) }),
        ..Status::streaming()
    }
}

fn copying(done: usize, eta_seconds: f64) -> Status {
    let state = |i| if i < done { TableState::Done } else { TableState::Pending };
    let copy: CopyProgress = test_copy((0..4).map(state), eta_seconds);
    Status { verdict: Verdict::Copying, copy: Some(copy), ..Status::streaming() }
}

fn switch(id: i64, way: &str, outcome: Option<&str>) -> Status {
    let switch = Switch {
        id,
        way: way.to_owned(),
        reverse: true,
        term: 1,
        holder: "ops".to_owned(),
        is_held: outcome.is_some(),
        step: "switch".to_owned(),
        is_decided: false,
        opened_at: None,
        begun_at: String::new(),
        outcome: outcome.map(str::to_owned),
        finished_at: None,
        error: None,
        pause_ms: None,
    };
    Status { switch: Some(switch), ..Status::streaming() }
}

#[test]
fn how_it_is_when_it_is_seen_first_is_no_news_and_neither_is_a_small_lag() {
    let mut scene = Scene::new("");
    assert_eq!(scene.events(0, Ok(&copying(4, 0.0))), [""; 0]);
    assert_eq!(scene.events(2, Ok(&behind(59.0))), [""; 0]);
    assert_eq!(scene.events(4, Ok(&behind(61.0))), ["lag_over"]);
    assert_eq!(scene.events(6, Ok(&behind(70.0))), [""; 0]);
    assert_eq!(scene.events(8, Ok(&Status::streaming())), ["lag_well"]);
}

#[test]
fn the_end_of_the_copy_is_told_once() {
    let mut scene = Scene::new("");
    assert_eq!(scene.events(0, Ok(&copying(0, 9.0))), [""; 0]);
    assert_eq!(scene.events(2, Ok(&copying(4, 0.0))), ["copied"]);
    let mut consistent = copying(4, 0.0);
    consistent.copy.as_mut().unwrap().consistent_since = Some("2026-11-22T03:00:00+00:00".to_owned());
    assert_eq!(scene.events(4, Ok(&consistent)), ["consistent"]);
    assert_eq!(scene.events(6, Ok(&consistent)), [""; 0]);
}

#[test]
fn a_database_is_unreachable_when_it_has_been_for_a_minute_and_the_next_life_tells_when_it_is_not() {
    let mut scene = Scene::new("");
    let lost = Fault::unreachable(Side::Target, "the connection was lost");
    let half = Status { source_error: Some("no answer".to_owned()), ..Status::streaming() };
    assert_eq!(scene.events(0, Ok(&Status::streaming())), [""; 0]);
    assert_eq!(scene.events(2, Err(&lost)), [""; 0]);
    assert_eq!(scene.events(32, Ok(&half)), [""; 0]);
    let told = scene.look(62, Err(&lost));
    assert_eq!((told[0].event, told[0].level, told[0].verdict), ("unreachable", Level::Alarm, None));
    assert!(told[0].text.ends_with("target: the connection was lost"), "{}", told[0].text);
    let mut next = Scene::new("");
    next.news.go_on(scene.news.told(), next.began);
    assert_eq!(next.events(0, Err(&lost)), [""; 0]);
    assert_eq!(next.events(2, Ok(&Status::streaming())), ["reachable"]);
}

#[test]
fn a_switch_is_told_by_its_steps_and_one_that_is_left_after_a_while() {
    let mut scene = Scene::new("");
    assert_eq!(scene.events(0, Ok(&Status::streaming())), [""; 0]);
    assert_eq!(scene.events(2, Ok(&switch(1, "cutover", None))), ["switch_begun"]);
    assert_eq!(scene.events(4, Ok(&switch(1, "cutover", None))), [""; 0]);
    assert_eq!(scene.events(12, Ok(&switch(1, "cutover", None))), ["switch_left"]);
    assert_eq!(scene.events(14, Ok(&switch(1, "cutover", Some("undone")))), ["switch_undone", "switch_held"]);
    assert_eq!(scene.events(16, Ok(&switch(2, "cutover", Some("switched")))), ["switched"]);
    assert_eq!(scene.events(18, Ok(&switch(3, "rollback", Some("switched")))), ["rolled_back"]);
}

#[test]
fn a_report_comes_every_so_often_and_says_whether_the_end_has_moved() {
    let mut scene = Scene::new("every = \"10m\"\n");
    let mut report =
        |seconds, status: &Status| scene.look(seconds, Ok(status)).pop().map(|message| message.text);
    assert_eq!(report(599, &copying(1, 3600.0)), None);
    assert_eq!(
        report(600, &copying(1, 3600.0)).unwrap(),
        "phase stream, on track; tables 1 of 4, 25 percent; elapsed 2 hours; 60 minutes left, until about 2026-11-22 04:10:00 UTC; \
         lag 0.1 s; open incidents 0"
    );
    assert_eq!(report(1199, &copying(2, 3000.0)), None);
    assert!(report(1200, &copying(2, 3000.0)).unwrap().starts_with("phase stream, on track; tables 2 of 4"));
    let late = report(1800, &copying(2, 4200.0)).unwrap();
    assert!(late.starts_with("phase stream, delayed: the end has moved by 30 minutes; "), "{late}");
}
