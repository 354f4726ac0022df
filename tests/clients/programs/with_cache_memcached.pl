# Cache::Memcached: what Perl's session modules store with.
use strict;
use warnings;

use Cache::Memcached;
use Time::HiRes qw(sleep time);

use constant {
    HOUR_S            => 3600,
    SHORT_TTL_S       => 2,
    EXPIRY_DEADLINE_S => 6,
    ASK_AGAIN_S       => 0.1,
    LARGE_BYTES       => 100_000,
};

my ($name, $first_address, $other_address) = @ARGV;
my ($count, $serial) = (0, 0);
my $first = connected($first_address);
my $other = connected($other_address);

comes_and_goes();
locks();
counts();
fetches_many();
is_large();
expires();
flushes();
print "ok $name $count checks\n";

sub comes_and_goes {
    my $key = new_key('session');
    equal('get of a missing key', $first->get($key), undef);
    equal('set', $first->set($key, { user => 'alice' }, HOUR_S), 1);
    equal('get', $first->get($key)->{user}, 'alice');
    equal('get at the other node', $other->get($key)->{user}, 'alice');
    equal('overwriting set', $first->set($key, 'a basket', HOUR_S), 1);
    equal('get of what was overwritten', $other->get($key), 'a basket');
    equal('replace', $first->replace($key, 'a full basket', HOUR_S), 1);
    equal('get of what was replaced', $other->get($key), 'a full basket');
    equal('delete', $first->delete($key), 1);
    equal('get after delete', $first->get($key), undef);
    equal('get after delete at the other node', $other->get($key), undef);
    equal('delete of what is gone', $other->delete($key) || 0, 0);
}

sub locks {
    my $key = new_key('lock');
    equal('add takes a free lock', $first->add($key, 'mine', HOUR_S), 1);
    equal('add refuses a taken one', $first->add($key, 'yours', HOUR_S) || 0, 0);
    equal('so at the other node', $other->add($key, 'yours', HOUR_S) || 0, 0);
    equal('the first holder stays', $other->get($key), 'mine');
    equal('the lock is given back', $first->delete($key), 1);
    equal('and taken at the other node', $other->add($key, 'yours', HOUR_S), 1);
}

sub counts {
    my $key = new_key('counter');
    equal('incr of a missing key', $first->incr($key), undef);
    $first->set($key, 9, HOUR_S);
    equal('incr', $first->incr($key), 10);
    equal('incr at the other node', $other->incr($key, 32), 42);
    equal('decr', $first->decr($key, 12), 30);
    equal('get of a number', $other->get($key), 30);
}

sub fetches_many {
    my %expected = map { new_key('many') => "value $_" } 1 .. 20;
    $first->set($_, $expected{$_}, HOUR_S) for keys %expected;
    for my $client ($first, $other) {
        my $seen = $client->get_multi(keys %expected, new_key('missing'));
        equal('get_multi', listed($seen), listed(\%expected));
    }
}

sub is_large {
    my $key = new_key('large');
    my $large = join '', map { chr rand 256 } 1 .. LARGE_BYTES;
    equal('set of 100 KB', $first->set($key, $large, HOUR_S), 1);
    equal('get of 100 KB', $first->get($key) eq $large, 1);
    equal('get of 100 KB at the other node', $other->get($key) eq $large, 1);
}

sub expires {
    my $mortal = new_key('mortal');
    $first->set($mortal, 'alive', SHORT_TTL_S);
    equal('get of a short life', $other->get($mortal), 'alive');
    my $end = time + EXPIRY_DEADLINE_S;
    while (defined $first->get($mortal) || defined $other->get($mortal)) {
        failed('a short life ends: not within ' . EXPIRY_DEADLINE_S . ' s') if time > $end;
        sleep ASK_AGAIN_S;
    }
    $count += 1;
}

sub flushes {
    my $key = new_key('flushed');
    $first->set($key, 'x', HOUR_S);
    equal('flush', $first->flush_all, 1);
    equal('get after flush', $first->get($key), undef);
    equal('get after flush at the other node', $other->get($key), undef);
    equal('set after flush', $first->set($key, 'anew', HOUR_S), 1);
    equal('get of what was set after flush', $other->get($key), 'anew');
    $first->delete($key);
    equal('stats', exists $first->stats->{hosts}{$first_address}{misc}{curr_items}, 1);
}

sub connected {
    my ($address) = @_;
    return Cache::Memcached->new({ servers => [$address] });
}

sub new_key {
    my ($what) = @_;
    $serial += 1;
    return join ':', $name, $what, $$, $serial, int rand 1e9;
}

sub listed {
    my ($items) = @_;
    return join ',', map {"$_=$items->{$_}"} sort keys %$items;
}

sub equal {
    my ($what, $seen, $expected) = @_;
    my $both_missing = !defined $seen && !defined $expected;
    my $is_same = $both_missing || (defined $seen && defined $expected && $seen eq $expected);
    if (!$is_same) {
        $_ //= 'nothing' for $seen, $expected;
        failed(substr("$what: saw $seen, expected $expected", 0, 300));
    }
    $count += 1;
}

sub failed {
    my ($why) = @_;
    print "FAILED $name after $count good checks: $why\n";
    exit 1;
}
