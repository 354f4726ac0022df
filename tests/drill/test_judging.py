"""The judges of the drill must see what they are there for."""

from dataclasses import dataclass

import pytest

from balancer import Answer
from browser import Page
from run import Result
from systems import Memcached, Sessiond
from targets import missed
from toll import Blame, Kind, Toll
from users import User


@dataclass(frozen=True)
class SomeWorker:
    host: int


class Site:
    """Answers with the pages it was given, one after the other; each takes half a second."""

    def __init__(self, pages, pause_s):
        self._pages = list(pages)
        self._pause_s = pause_s
        self._worker = SomeWorker(0)
        self._now_s = 1.0

    def send(self, _browser, view):
        begun_s, ended_s = self._now_s, self._now_s + 0.5
        self._now_s = ended_s + self._pause_s
        return Answer(view, self._worker, begun_s, begun_s, ended_s, self._pages.pop(0))


def shown(visits):
    return Page(200, "ann", visits)


LOGGED_IN = Page(200, "ann")
LOGGED_OUT = Page(403)
FAILED = Page(500)


def toll_of(pages, *acts, pause_s=0.5):
    """What ann finds who logs in and then does these acts."""
    toll = Toll()
    ann = User("ann", Site([LOGGED_IN, *pages], pause_s), toll, seed=1)
    for act in (User._login, *acts):
        act(ann)
    return toll


def kinds(toll):
    return [finding.kind for finding in toll.findings]


def test_what_was_confirmed_and_is_read_again_is_no_finding():
    toll = toll_of([shown(1), shown(1), shown(2)], User._visit, User._read, User._visit)
    assert kinds(toll) == []


def test_a_number_that_stays_lower_is_a_lost_update():
    toll = toll_of([shown(1), shown(0), shown(0)], User._visit, User._read)
    assert kinds(toll) == [Kind.LOST]


def test_a_number_that_is_lower_once_is_a_stale_read():
    toll = toll_of([shown(1), shown(0), shown(1)], User._visit, User._read)
    assert kinds(toll) == [Kind.STALE]


def test_a_stale_number_that_is_written_back_is_a_lost_update():
    toll = toll_of([shown(1), shown(1)], User._visit, User._visit)
    assert kinds(toll) == [Kind.LOST]


@pytest.mark.parametrize("visits", [1, 2])
def test_a_visit_without_an_answer_may_count_or_not(visits):
    toll = toll_of([shown(1), FAILED, shown(visits)], User._visit, User._visit, User._read)
    assert kinds(toll) == [Kind.ERROR]


def test_more_visits_than_were_made_end_the_drill():
    with pytest.raises(AssertionError, match="reads 2 visits of 1 at most"):
        toll_of([shown(1), shown(2)], User._visit, User._read)


def test_a_session_that_is_gone_is_a_logout():
    assert kinds(toll_of([LOGGED_OUT], User._visit)) == [Kind.LOGOUT]


def test_an_old_cookie_that_works_is_a_session_that_came_back():
    acts = (User._logout, User._try_an_old_cookie)
    assert kinds(toll_of([Page(200), Page(200)], *acts)) == []
    assert kinds(toll_of([Page(200), shown(0)], *acts)) == [Kind.BACK]


def struck(toll, from_s, to_s, host=0):
    with toll.strike([host]):
        pass
    toll.strikes[-1].begun_s, toll.strikes[-1].ended_s = from_s, to_s


def test_only_what_was_open_on_a_victim_when_it_was_struck_is_in_flight():
    # The login takes until 1.5, the visit from 2 to 2.5.
    for from_s, to_s, host, in_flight in [
        (2.2, 2.3, 0, 1),
        (2.2, 2.3, 1, 0),
        (1.6, 1.9, 0, 0),
        (2.6, 2.7, 0, 0),
    ]:
        toll = toll_of([FAILED], User._visit)
        struck(toll, from_s, to_s, host)
        assert toll.number(Kind.ERROR, Blame.IN_FLIGHT) == in_flight


def test_a_logout_after_a_rotation_that_was_in_flight_is_in_flight():
    toll = toll_of([FAILED, LOGGED_OUT], User._rotate, User._visit)
    struck(toll, 2.2, 2.3)
    assert toll.number(Kind.LOGOUT, Blame.IN_FLIGHT) == toll.number(Kind.LOGOUT) == 1


@pytest.mark.parametrize(("pause_s", "blame"), [(0.9, Blame.SILENCE), (1.1, Blame.NOTHING)])
def test_silence_lasts_a_second_from_what_was_in_flight(pause_s, blame):
    toll = toll_of([FAILED, LOGGED_OUT], User._visit, User._visit, pause_s=pause_s)
    (error, logout) = toll.findings
    struck(toll, error.answer.begun_s, error.answer.begun_s)
    assert toll.blame(error.answer) is Blame.IN_FLIGHT
    assert toll.blame(logout.answer) is blame


def test_a_logout_that_was_not_sent_in_silence_is_to_blame_for_the_session_that_came_back():
    acts = (User._visit, User._logout, User._try_an_old_cookie)
    toll = toll_of([FAILED, Page(200), shown(0)], *acts)
    struck(toll, 2.2, 2.3)
    assert toll.number(Kind.BACK, Blame.SILENCE) == toll.number(Kind.BACK) == 1


def test_trouble_is_counted_from_the_last_strike_before_it():
    toll = toll_of([shown(1), FAILED], User._visit, User._visit)
    struck(toll, 1.6, 1.7)
    struck(toll, 2.7, 2.8)
    assert toll.recovered_after_s() == pytest.approx(3.5 - 2.7)


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [("restart", "list"), ("crash", "local"), ("kill", "local"), ("kill", "list")],
)
def test_a_logout_that_nothing_excuses_misses_the_target(scenario, mode):
    result = Result(toll_of([LOGGED_OUT], User._visit), still_held=0)
    assert missed(scenario, mode, Sessiond, result) != []
    assert missed(scenario, mode, Memcached, result) == []


def test_a_session_that_came_back_misses_the_target():
    toll = toll_of([Page(200), shown(0)], User._logout, User._try_an_old_cookie)
    result = Result(toll, still_held=0)
    assert missed("partition", "local", Sessiond, result) == ["back after logout: 1, allowed 0"]
