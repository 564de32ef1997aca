//! What the full-screen view shows, and how keys change that.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;

use super::answers::{Answers, Inside, More, Question, Rows};
use super::tabs::{RowId, Sort, TABS, Tab};
use crate::cli::filters::What;
use crate::cli::render::groups::short_id;
use crate::cli::typed;
use crate::event::Connection;
use crate::query::top::{Group, Key, TopBy};
use crate::query::{Filter, LeftOut};

/// How far back the figures can reach.
const WINDOWS: [(Duration, &str); 6] = [
    (Duration::from_secs(60), "1 min"),
    (Duration::from_secs(300), "5 min"),
    (Duration::from_secs(900), "15 min"),
    (Duration::from_secs(3_600), "1 h"),
    (Duration::from_secs(21_600), "6 h"),
    (Duration::from_secs(86_400), "24 h"),
];

/// Longer than any filter that is typed.
const LONGEST: usize = 1_000;

/// Of so many answers, one says whether there are containers, until there are, and one what is left out
/// of an empty list: that is counted, of all times if need be.
const SELDOM: u64 = 10;

/// What a key led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing beyond the screen.
    Draw,
    /// Something else has to be asked.
    Ask,
    /// The end.
    Quit,
    /// The shell that started this wants the terminal (Ctrl-Z).
    Suspend,
}

/// What lies over the list.
#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    /// Nothing.
    List,
    /// The keys.
    Help,
    /// One connection in full, scrolled down by so many lines.
    Detail(Box<Connection>, usize),
}

/// A row as it is shown.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    /// A group.
    Group(&'a Group),
    /// A connection.
    Connection(&'a Connection),
}

impl Row<'_> {
    fn id(&self) -> RowId {
        match self {
            Row::Group(group) => RowId::Group(group.key.clone()),
            Row::Connection(connection) => RowId::Connection(connection.id),
        }
    }
}

/// What it was counted for: a filter, a window, and the time of a pause.
type Counted = (Filter, usize, Option<Timestamp>);

/// The state of the view.
#[derive(Debug)]
pub struct State {
    what: What,
    /// What the command line asked for, as it would be typed.
    pub fixed: String,
    sees_sent: bool,
    /// The connections that are meant, at any time.
    filter: Filter,
    /// The list.
    pub tab: Tab,
    window: usize,
    /// The order of groups, and of connections.
    sorts: [Sort; 2],
    reversed: [bool; 2],
    /// What was typed.
    pub line: String,
    /// While it is being typed: what it was before.
    pub before: Option<String>,
    /// Why it is no filter.
    pub line_error: Option<String>,
    /// The row that was chosen; `None` for whichever is first.
    chosen: Option<RowId>,
    /// Where that was.
    place: usize,
    /// The first row that is on the screen, and how many there are.
    pub offset: usize,
    /// How many rows the screen has.
    pub page: usize,
    /// Minutes that the graph shows.
    pub minutes: u32,
    /// Whether there is room to tell of the chosen row beside the list.
    pub wide: bool,
    /// When it was paused.
    pub paused: Option<Timestamp>,
    /// What lies over the list.
    pub over: Over,
    /// What is shown.
    pub answers: Option<Answers>,
    /// Why that is old.
    pub error: Option<String>,
    /// What of containers there was. Their tabs stay, whatever is filtered.
    inside: Inside,
    /// What is left out of an empty list.
    left_out: Option<(Counted, LeftOut)>,
    /// How many answers there were.
    rounds: u64,
    back: Vec<(Tab, String)>,
}

impl State {
    /// The first tab, of what the command line asked for.
    pub fn new(what: What, sees_sent: bool) -> Result<Self, crate::query::QueryError> {
        let filter = what.narrowed(&[], sees_sent)?;
        Ok(State {
            fixed: what.to_string(),
            what,
            sees_sent,
            filter,
            tab: TABS[0],
            window: 2,
            sorts: [Sort::Count, Sort::Latest],
            reversed: [false; 2],
            line: String::new(),
            before: None,
            line_error: None,
            chosen: None,
            place: 0,
            offset: 0,
            page: 1,
            minutes: 60,
            wide: false,
            paused: None,
            over: Over::List,
            answers: None,
            error: None,
            inside: Inside::default(),
            left_out: None,
            rounds: 0,
            back: Vec::new(),
        })
    }

    /// What has to be asked for this.
    pub fn question(&self) -> Question {
        let about = match self.tab {
            Tab::Groups(_) if self.wide => match self.selected() {
                Some(RowId::Group(key)) => Some(key),
                _ => None,
            },
            _ => None,
        };
        let detail = match &self.over {
            Over::Detail(connection, _) => Some(connection.id),
            _ => None,
        };
        Question {
            filter: self.filter.clone(),
            window: WINDOWS[self.window].0,
            until: self.paused,
            tab: self.tab,
            minutes: self.minutes,
            about,
            detail,
        }
    }

    /// Whether what is shown is the answer to what is asked.
    pub fn is_answered(&self) -> bool {
        self.error.is_none() && self.answers.as_ref().is_some_and(|a| a.question == self.question())
    }

    /// How far back the figures reach.
    pub fn window_name(&self) -> &'static str {
        WINDOWS[self.window].1
    }

    /// Shows these answers.
    pub fn take(&mut self, answers: Answers) {
        if let (Over::Detail(shown, _), Some(newer)) = (&mut self.over, &answers.detail)
            && shown.id == newer.id
        {
            **shown = newer.clone();
        }
        self.inside = self.inside.or(answers.inside.unwrap_or_default());
        if let Some(left_out) = answers.left_out
            && answers.question == self.question()
        {
            self.left_out = Some((self.counted(), left_out));
        }
        self.rounds += 1;
        self.answers = Some(answers);
        self.error = None;
    }

    /// What is to be asked beside the question.
    pub fn more(&self) -> More {
        let all = self.inside.containers && self.inside.pods;
        let seldom = self.rounds.is_multiple_of(SELDOM);
        More { inside: !all && seldom, left_out: seldom || self.left_out().is_none() }
    }

    /// What is left out of what is shown, as far as that is known.
    pub fn left_out(&self) -> Option<LeftOut> {
        let of = self.counted();
        self.left_out.as_ref().filter(|(counted, _)| *counted == of).map(|(_, left_out)| *left_out)
    }

    /// What is left out is counted for these connections, of this time.
    fn counted(&self) -> Counted {
        (self.filter.clone(), self.window, self.paused)
    }

    /// The lists that there are, with their keys.
    pub fn tabs(&self) -> impl Iterator<Item = (char, Tab)> {
        let is_there = |tab: &Tab| match tab {
            Tab::Groups(TopBy::Container) => self.inside.containers,
            Tab::Groups(TopBy::Pod) => self.inside.pods,
            _ => true,
        };
        ('1'..='9').zip(TABS).filter(move |(_, tab)| is_there(tab))
    }

    fn kind(&self) -> usize {
        usize::from(self.tab == Tab::Connections)
    }

    /// The order, and whether it is the other way round.
    pub fn sort(&self) -> (Sort, bool) {
        (self.sorts[self.kind()], self.reversed[self.kind()])
    }

    /// The rows in their order. None while the answers are about another tab.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let Some(answers) = &self.answers else { return Vec::new() };
        let (sort, reversed) = self.sort();
        let mut rows: Vec<Row<'_>> = match (&answers.rows, self.tab) {
            (Rows::Groups(top), Tab::Groups(by)) if top.by == by => {
                let mut groups: Vec<&Group> = top.groups.iter().collect();
                groups.sort_by(|a, b| sort.groups(a, b, &answers.now));
                groups.into_iter().map(Row::Group).collect()
            }
            (Rows::Connections(list), Tab::Connections) => {
                let mut connections: Vec<&Connection> = list.connections.iter().collect();
                connections.sort_by(|a, b| sort.connections(a, b));
                connections.into_iter().map(Row::Connection).collect()
            }
            _ => Vec::new(),
        };
        if reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the chosen row is.
    pub fn selected_index(&self, rows: &[Row<'_>]) -> usize {
        let last = rows.len().saturating_sub(1);
        match &self.chosen {
            None => 0,
            Some(id) => {
                let found = rows.iter().position(|row| row.id() == *id);
                found.unwrap_or(self.place).min(last)
            }
        }
    }

    /// The chosen row.
    pub fn selected(&self) -> Option<RowId> {
        let rows = self.rows();
        rows.get(self.selected_index(&rows)).map(Row::id)
    }

    fn move_to(&mut self, index: usize) -> Next {
        let rows = self.rows();
        let index = index.min(rows.len().saturating_sub(1));
        // At the top it stays there, whatever comes to be first.
        let chosen = rows.get(index).filter(|_| index > 0).map(Row::id);
        drop(rows);
        (self.chosen, self.place) = (chosen, index);
        if self.wide && self.tab != Tab::Connections { Next::Ask } else { Next::Draw }
    }

    fn move_by(&mut self, rows: isize) -> Next {
        let at = self.selected_index(&self.rows());
        self.move_to(at.saturating_add_signed(rows))
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Next::Quit,
                KeyCode::Char('z') => return Next::Suspend,
                _ => {}
            }
        }
        if self.before.is_some() {
            return self.typing(key);
        }
        match self.over {
            Over::List => self.list_key(key),
            Over::Help => {
                self.over = Over::List;
                if key.code == KeyCode::Char('q') { Next::Quit } else { Next::Draw }
            }
            Over::Detail(_, scrolled) => self.detail_key(key, scrolled),
        }
    }

    fn detail_key(&mut self, key: KeyEvent, scrolled: usize) -> Next {
        let page = self.page.max(1);
        let to = match key.code {
            KeyCode::Up | KeyCode::Char('k') => scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => scrolled + 1,
            KeyCode::PageUp => scrolled.saturating_sub(page),
            KeyCode::PageDown => scrolled + page,
            KeyCode::Home => 0,
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?' | 'h') => {
                self.over = Over::Help;
                return Next::Draw;
            }
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace => {
                self.over = Over::List;
                return Next::Draw;
            }
            _ => return Next::Draw,
        };
        if let Over::Detail(_, scrolled) = &mut self.over {
            *scrolled = to;
        }
        Next::Draw
    }

    fn list_key(&mut self, key: KeyEvent) -> Next {
        let page = isize::try_from(self.page.max(1)).unwrap_or(1);
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.over = Over::Help,
            KeyCode::Up | KeyCode::Char('k') => return self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => return self.move_by(1),
            KeyCode::PageUp => return self.move_by(-page),
            KeyCode::PageDown => return self.move_by(page),
            KeyCode::Home | KeyCode::Char('g') => return self.move_to(0),
            KeyCode::End | KeyCode::Char('G') => return self.move_to(usize::MAX),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => return self.next_tab(1),
            KeyCode::BackTab | KeyCode::Left => return self.next_tab(-1),
            KeyCode::Char(digit @ '1'..='9') => {
                let tab = self.tabs().find(|(key, _)| *key == digit);
                return tab.map_or(Next::Draw, |(_, tab)| self.show(tab));
            }
            KeyCode::Char('s') => self.next_sort(1),
            KeyCode::Char('S') => self.next_sort(self.tab.sorts().len() - 1),
            KeyCode::Char('r') => {
                let kind = self.kind();
                self.reversed[kind] = !self.reversed[kind];
            }
            KeyCode::Char('+' | '=') => return self.widen(true),
            KeyCode::Char('-') => return self.widen(false),
            KeyCode::Char('p' | ' ') => {
                let until = self.answers.as_ref().map(|answers| answers.until);
                self.paused = match self.paused {
                    Some(_) => None,
                    None => Some(until.unwrap_or_else(Timestamp::now)),
                };
                return Next::Ask;
            }
            KeyCode::Char('/' | 'f') => self.before = Some(self.line.clone()),
            KeyCode::Enter => return self.open(),
            KeyCode::Esc | KeyCode::Backspace => return self.go_back(),
            _ => {}
        }
        Next::Draw
    }

    fn typing(&mut self, key: KeyEvent) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => {
                // What cannot be understood is not what is shown: it is typed on.
                if self.line_error.is_none() {
                    self.before = None;
                }
                return Next::Draw;
            }
            KeyCode::Esc => {
                self.line = self.before.take().unwrap_or_default();
            }
            KeyCode::Backspace => {
                self.line.pop();
            }
            KeyCode::Char('u') if control => self.line.clear(),
            KeyCode::Char('w') if control => {
                let kept = self.line.trim_end().rfind(' ').map_or(0, |space| space + 1);
                self.line.truncate(kept);
            }
            KeyCode::Char(c) if !control && self.line.len() < LONGEST => self.line.push(c),
            _ => return Next::Draw,
        }
        self.apply_line()
    }

    /// Takes what was typed as the filter, if it is one.
    fn apply_line(&mut self) -> Next {
        let read = typed::read(&self.line);
        match read.and_then(|typed| self.what.narrowed(&typed, self.sees_sent)) {
            Ok(filter) => {
                self.line_error = None;
                if filter == self.filter {
                    return Next::Draw;
                }
                self.filter = filter;
                Next::Ask
            }
            Err(error) => {
                self.line_error = Some(error.to_string());
                Next::Draw
            }
        }
    }

    fn show(&mut self, tab: Tab) -> Next {
        if tab == self.tab {
            return Next::Draw;
        }
        self.tab = tab;
        (self.chosen, self.place, self.offset) = (None, 0, 0);
        Next::Ask
    }

    fn next_tab(&mut self, by: isize) -> Next {
        let tabs: Vec<Tab> = self.tabs().map(|(_, tab)| tab).collect();
        let at = tabs.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        let next = (at + tabs.len()).saturating_add_signed(by) % tabs.len();
        self.show(tabs[next])
    }

    fn next_sort(&mut self, by: usize) {
        let (kind, sorts) = (self.kind(), self.tab.sorts());
        let at = sorts.iter().position(|sort| *sort == self.sorts[kind]).unwrap_or(0);
        self.sorts[kind] = sorts[(at + by) % sorts.len()];
        self.reversed[kind] = false;
        (self.chosen, self.place, self.offset) = (None, 0, 0);
    }

    fn widen(&mut self, wider: bool) -> Next {
        let to = match wider {
            true => (self.window + 1).min(WINDOWS.len() - 1),
            false => self.window.saturating_sub(1),
        };
        if to == self.window {
            return Next::Draw;
        }
        self.window = to;
        Next::Ask
    }

    /// The connections of a group, or all of one connection.
    fn open(&mut self) -> Next {
        let rows = self.rows();
        match (rows.get(self.selected_index(&rows)), self.tab.by()) {
            (Some(Row::Connection(connection)), _) => {
                let connection = Box::new((*connection).clone());
                self.over = Over::Detail(connection, 0);
                Next::Ask
            }
            (Some(Row::Group(group)), Some(by)) => {
                let value = match &group.key {
                    Key::Number(number) => number.to_string(),
                    Key::Text(id) if by == TopBy::Container => short_id(id).to_owned(),
                    Key::Text(text) => text.clone(),
                };
                let line = typed::with(&self.line, &by.to_string(), &value);
                self.back.push((self.tab, std::mem::replace(&mut self.line, line)));
                self.apply_line();
                self.show(Tab::Connections);
                Next::Ask
            }
            _ => Next::Draw,
        }
    }

    /// To where a group was opened, and then to no filter.
    fn go_back(&mut self) -> Next {
        let (tab, line) = match self.back.pop() {
            Some((tab, line)) => (tab, line),
            None => (self.tab, String::new()),
        };
        self.line = line;
        let asked = self.apply_line();
        let shown = self.show(tab);
        if shown == Next::Ask { shown } else { asked }
    }
}
