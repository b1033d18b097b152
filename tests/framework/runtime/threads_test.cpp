// Shows that the number of threads stays within a CPU quota, is never 0, and that its description names what bounds it.
#include "runtime/threads.h"

#include <cmath>

#include "support/test.h"

TEST_CASE("threads stay within the quota, rounded up, and are at least one") {
  CHECK(peft::threads_within(INFINITY, 8) == 8);
  CHECK(peft::threads_within(8, 8) == 8);
  CHECK(peft::threads_within(9.5, 8) == 8);
  CHECK(peft::threads_within(1, 2) == 1);
  CHECK(peft::threads_within(1.5, 2) == 2);
  CHECK(peft::threads_within(1.5, 8) == 2);
  CHECK(peft::threads_within(0.1, 8) == 1);
  CHECK(peft::threads_within(0.1, 1) == 1);
}

TEST_CASE("the description of the threads names the CPUs, or the quota if that is less") {
  CHECK(peft::describe_threads(2, {2, INFINITY}) == "2 threads (of 2 CPUs)");
  CHECK(peft::describe_threads(1, {2, INFINITY}) == "1 thread (of 2 CPUs)");
  CHECK(peft::describe_threads(1, {1, INFINITY}) == "1 thread (of 1 CPU)");
  CHECK(peft::describe_threads(2, {2, 4}) == "2 threads (of 2 CPUs)");
  CHECK(peft::describe_threads(1, {2, 1}) == "1 thread: the quota is 1.0 CPUs");
  CHECK(peft::describe_threads(2, {8, 1.5}) == "2 threads: the quota is 1.5 CPUs");
  CHECK(peft::describe_threads(4, {4, 1}) == "4 threads, although the quota is 1.0 CPUs");
}
