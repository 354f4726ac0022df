<?php
// A PHP site of several hosts: each request is a process of its own, as under a web server.

require __DIR__ . '/php_checks.php';

const REQUEST_DEADLINE_S = 20;

final class Request
{
    private mixed $process;
    private array $pipes = [];

    /** @param string[] $settings for php.ini, e.g. `session.gc_maxlifetime=2` */
    public function __construct(string $address, string $id, string $action, array $settings = [])
    {
        $program = __DIR__ . '/php_request.php';
        $command = [PHP_BINARY, $program, $address, $id, $action, ...$settings];
        $this->process = proc_open($command, [['pipe', 'r'], ['pipe', 'w'], STDERR], $this->pipes);
    }

    /** The next line that it prints; null when it has ended, or took too long. */
    public function line(): ?string
    {
        $readable = [$this->pipes[1]];
        $none = null;
        if (!stream_select($readable, $none, $none, REQUEST_DEADLINE_S)) {
            proc_terminate($this->process, 9);
            return null;
        }
        return ($line = fgets($this->pipes[1])) === false ? null : rtrim($line);
    }

    public function let_go(): void
    {
        fwrite($this->pipes[0], "\n");
    }

    /** What the page shows. */
    public function answer(): ?array
    {
        $line = $this->line();
        proc_close($this->process);
        return $line === null ? null : json_decode($line, true);
    }
}

function visit(string $address, string $session_id, string $action, array $settings = []): ?array
{
    return (new Request($address, $session_id, $action, $settings))->answer();
}
