<?php
// Counts what held, and ends the program at the first thing that did not.

const ASK_AGAIN_US = 100_000;

final class Checks
{
    private int $count = 0;

    public function __construct(private string $name)
    {
        // A warning of the extension is a finding: PHP itself would go on.
        set_error_handler(function (int $level, string $message) {
            $this->fail("PHP says: $message");
        });
    }

    public function equal(string $what, mixed $seen, mixed $expected): void
    {
        if ($seen !== $expected) {
            [$seen, $expected] = [self::short($seen), self::short($expected)];
            $this->fail("$what: saw $seen, expected $expected");
        }
        $this->count++;
    }

    /** For what only time brings: asks until it is so. */
    public function becomes(string $what, callable $condition, float $deadline_s): void
    {
        $end = microtime(true) + $deadline_s;
        while (!$condition()) {
            if (microtime(true) > $end) {
                $this->fail("$what: not within $deadline_s s");
            }
            usleep(ASK_AGAIN_US);
        }
        $this->count++;
    }

    public function end(string $remark = ''): never
    {
        echo "ok $this->name $this->count checks", $remark ? ": $remark" : '', "\n";
        exit(0);
    }

    private function fail(string $why): never
    {
        echo "FAILED $this->name after $this->count good checks: $why\n";
        exit(1);
    }

    private static function short(mixed $value): string
    {
        $text = var_export($value, true);
        $bytes = strlen($text);
        return $bytes <= 200 ? $text : substr($text, 0, 150) . "... ($bytes bytes)";
    }
}
