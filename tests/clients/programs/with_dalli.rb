# Dalli, Rails' client. Before its release 3.2 it knew the binary protocol only, and a server
# without it must say so at once; from then on it has meta commands, and does a session's work.
require 'dalli'
require 'securerandom'

HOUR_S = 3600
SHORT_TTL_S = 2
EXPIRY_DEADLINE_S = 6
AT_ONCE_S = 5
# Longer than at once, so that it is the server that ends the wait and not the client.
CLIENT_TIMEOUT_S = 20

class Checks
  attr_reader :count

  def initialize(name)
    @name = name
    @count = 0
  end

  def equal(what, seen, expected)
    if seen != expected
      failed("#{what}: saw #{seen.inspect[0, 150]}, expected #{expected.inspect[0, 150]}")
    end
    @count += 1
  end

  def becomes(what, deadline_s)
    give_up_at = now + deadline_s
    until yield
      failed("#{what}: not within #{deadline_s} s") if now > give_up_at
      sleep 0.1
    end
    @count += 1
  end

  def end(remark = nil)
    puts "ok #{@name} #{@count} checks#{remark && ": #{remark}"}"
  end

  def failed(why)
    puts "FAILED #{@name} after #{@count} good checks: #{why}"
    exit 1
  end
end

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

def use_sessions(checks, first, other, name)
  key = "#{name}:#{SecureRandom.hex}"
  checks.equal('get of a missing key', first.get(key), nil)
  first.set(key, { user: 'alice' }, HOUR_S)
  checks.equal('get', first.get(key), { user: 'alice' })
  checks.equal('get at the other node', other.get(key), { user: 'alice' })
  first.set(key, 'a basket', HOUR_S)
  checks.equal('get of what was overwritten', other.get(key), 'a basket')
  swapped = other.cas(key) { |value| "#{value} of apples" }
  checks.equal('cas', swapped ? true : false, true)
  checks.equal('get after cas', first.get(key), 'a basket of apples')
  many = (1..20).to_h { |number| ["#{key}:#{number}", number] }
  many.each { |each_key, value| first.set(each_key, value, HOUR_S) }
  checks.equal('get_multi', other.get_multi(*many.keys, "#{key}:no"), many)
  checks.equal('delete', first.delete(key), true)
  checks.equal('get after delete', other.get(key), nil)
  checks.equal('add takes a free lock', first.add(key, 'mine', HOUR_S) ? true : false, true)
  checks.equal('add refuses a taken one', other.add(key, 'yours', HOUR_S) ? true : false, false)
  first.delete(key)
  checks.equal('a counter starts', first.incr(key, 1, HOUR_S, 5), 5)
  checks.equal('and goes on at the other node', other.incr(key, 2), 7)
  large = SecureRandom.random_bytes(100_000)
  first.set(key, large, HOUR_S)
  checks.equal('get of 100 KB at the other node', other.get(key), large)
  touched = "#{key}:touched"
  [key, touched].each { |each_key| first.set(each_key, 'alive', SHORT_TTL_S) }
  checks.equal('get of a short life', other.get(key), 'alive')
  checks.equal('touch', first.touch(touched, HOUR_S), true)
  checks.equal('get and touch', other.gat(touched, HOUR_S), 'alive')
  checks.becomes('a short life ends', EXPIRY_DEADLINE_S) { other.get(key).nil? }
  checks.equal('what was touched lives on', other.get(touched), 'alive')
  first.flush
  checks.equal('get after flush', other.get(touched), nil)
end

name, first_address, other_address = ARGV
Dalli.logger.level = Logger::FATAL
speaks_meta = Gem::Version.new(Dalli::VERSION) >= Gem::Version.new('3.2')
options = { socket_timeout: CLIENT_TIMEOUT_S, socket_max_failures: 0 }
options[:protocol] = :meta if speaks_meta
checks = Checks.new(name)
first, other = [first_address, other_address].map { |address| Dalli::Client.new(address, options) }

if speaks_meta
  use_sessions(checks, first, other, name)
  checks.end('meta')
else
  started = now
  begin
    first.set(name, 'x', HOUR_S)
    is_served = true
  rescue Dalli::DalliError, SystemCallError, EOFError
    is_served = false
  end
  seconds = now - started
  checks.equal('an answer at once', seconds < AT_ONCE_S, true)
  use_sessions(checks, first, other, name) if is_served
  checks.end(is_served ? 'served' : "refused after #{(seconds * 1000).round} ms")
end
