// Work distributed over threads that do not occupy the cores while they wait.
//
// The calling thread does the work itself; helpers take items of it as soon as they run. Unlike at a barrier,
// no item waits for a helper that another process keeps from running. An idle helper spins for
// some microseconds and then sleeps.

#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

class Helpers {
public:
    // Call work(context) here and in up to `others` helpers. Returns when all started calls have ended.
    void share(int64_t others, void (*work)(void *), void *context)
    {
        Job job{work, context, others, {0}, nullptr};
        {
            const std::lock_guard<std::mutex> hold(mutex);
            while (count < others && begin()) count++;
            job.next = jobs;
            jobs = &job;
            posted.fetch_add(1, std::memory_order_release);
            if (sleeping) others == 1 ? wake.notify_one() : wake.notify_all();
        }
        work(context);
        std::unique_lock<std::mutex> hold(mutex);
        for (Job **at = &jobs; *at; at = &(*at)->next)
            if (*at == &job) {
                *at = job.next;
                break;
            }
        if (!job.running) return;
        hold.unlock();
        spin([&] { return !job.running.load(std::memory_order_acquire); });
        hold.lock();
        done.wait(hold, [&] { return !job.running; });
    }

    static Helpers &all()
    {
        static const int registered = pthread_atfork(nullptr, nullptr, [] { instance() = new Helpers; });
        (void)registered;
        return *instance();
    }

private:
    struct Job {
        void (*work)(void *);
        void *context;
        int64_t wanted;
        std::atomic<int64_t> running;
        Job *next;
    };

    std::mutex mutex;
    std::condition_variable wake, done;
    std::atomic<int64_t> posted{0};
    Job *jobs = nullptr;
    int64_t count = 0, sleeping = 0;

    // Never destroyed: helpers may sleep in it when the process ends. A forked process has none of its
    // parent's threads, and starts with a new pool.
    static Helpers *&instance()
    {
        static Helpers *found = new Helpers;
        return found;
    }

    template <typename Condition>
    static bool spin(Condition met)
    {
        const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
        do
            for (int i = 0; i < 32; i++) {
                if (met()) return true;
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
        while (std::chrono::steady_clock::now() < end);
        return false;
    }

    bool begin()
    {
        sigset_t none, before;
        sigfillset(&none);
        pthread_sigmask(SIG_SETMASK, &none, &before);  // signals must go to Python's threads
        bool begun = true;
        try {
            std::thread([this] { help(); }).detach();
        } catch (...) {
            begun = false;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return begun;
    }

    void help()
    {
        std::unique_lock<std::mutex> hold(mutex);
        for (;;) {
            Job *job = jobs;
            while (job && !job->wanted) job = job->next;
            if (job) {
                job->wanted--;
                job->running.fetch_add(1, std::memory_order_relaxed);
                hold.unlock();
                job->work(job->context);
                hold.lock();
                if (job->running.fetch_sub(1, std::memory_order_release) == 1) done.notify_all();
                continue;
            }
            const int64_t seen = posted.load(std::memory_order_relaxed);
            hold.unlock();
            const bool more = spin([&] { return posted.load(std::memory_order_acquire) != seen; });
            hold.lock();
            if (more || posted.load(std::memory_order_relaxed) != seen) continue;
            sleeping++;
            wake.wait(hold);
            sleeping--;
        }
    }
};

// Runs `body` in up to `threads` threads: here and in helpers, or in torch's threads. Its argument is a function that
// returns the items 0 to count - 1, each once, and then -1. Returns 0, or 1 if an item remains because no body
// took it.
//
// Torch's threads are used for work between torch operations, as in a training step: they spin for
// milliseconds after each operation, and helpers would compete with them for the cores.
enum class Threads { OWN, OF_TORCH };

template <typename Body>
static int in_parallel(int64_t count, int64_t threads, const Body &body, Threads whose = Threads::OWN)
{
    std::atomic<int64_t> next{0};
    const auto take = [&]() -> int64_t {
        const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
        return item < count ? item : -1;
    };
    const auto work = [&] { body(take); };
    const int64_t use = threads < count ? threads : count;
    if (use < 2)
        work();
    else if (whose == Threads::OWN)
        Helpers::all().share(use - 1, [](void *context) { (*(decltype(work) *)context)(); }, (void *)&work);
    else
#pragma omp parallel num_threads(use)
        work();
    return next.load() < count;
}
