"""Plain requests by openai-python with its own retries, from several threads, until a line comes on stdin. Exits non-zero if
one of them failed."""
import concurrent.futures, sys, threading

from openai import OpenAI

client = OpenAI()
stop = threading.Event()
running = threading.Event()


def ask(thread):
    done = 0
    while not stop.is_set():
        answer = client.completions.create(model="text-davinci-003", prompt=f"thread {thread}, request {done}", max_tokens=100,
                                           extra_body={"ignore_eos": True})
        assert answer.usage.completion_tokens == 100
        done += 1
        running.set()
    return done


with concurrent.futures.ThreadPoolExecutor(6) as pool:
    asked = [pool.submit(ask, thread) for thread in range(6)]
    running.wait()
    print("running", flush=True)
    sys.stdin.readline()
    stop.set()
    print(sum(a.result() for a in asked), "plain requests of openai-python, all whole")
